use std::io::{Cursor, Read as _};

use super::*;
use crate::{Error, Outgoing, Pushed, Selector, UploadOptions};

/// What was sent with a request, at most so much of it.
fn body(request: &str, stream: &mut TcpStream, most: usize) -> Vec<u8> {
    let length = request
        .split_once("content-length: ")
        .and_then(|(_, rest)| rest.split_once("\r\n").and_then(|(length, _)| length.parse::<usize>().ok()));
    let mut bytes = vec![0; length.unwrap_or(0).min(most)];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A registry that takes one upload: what it has received, and how many bytes it takes of each of the next requests.
#[derive(Default)]
struct Uploads {
    received: Vec<u8>,
    take: Vec<usize>,
    sizes: Vec<usize>,
}

fn registry(uploads: &Arc<Mutex<Uploads>>, forgets: bool) -> Server {
    let uploads = Arc::clone(uploads);
    Server::with(move |request, _, stream| {
        let mut uploads = uploads.lock().unwrap();
        let location = "Location: /upload/1?state=a%2Bb\r\n";
        let reply = match request.split(' ').next().unwrap_or_default() {
            "HEAD" => answer("404 Not Found", "", b""),
            "POST" => {
                uploads.received.clear();
                answer("202 Accepted", location, b"")
            }
            "GET" if forgets => {
                answer("404 Not Found", "Docker-Distribution-Api-Version: registry/2.0\r\n", b"")
            }
            "GET" => {
                let range = format!("{location}Range: 0-{}\r\n", uploads.received.len().saturating_sub(1));
                answer("204 No Content", &range, b"")
            }
            method => {
                assert!(request.contains("/upload/1?state=a%2Bb"), "{request}");
                if let Some((_, rest)) = request.split_once("content-range: ") {
                    assert!(rest.starts_with(&format!("{}-", uploads.received.len())), "{request}");
                }
                let most = if uploads.take.is_empty() { usize::MAX } else { uploads.take.remove(0) };
                let bytes = body(request, stream, most);
                uploads.sizes.push(bytes.len());
                uploads.received.extend(bytes);
                if most != usize::MAX {
                    return Ok(());
                }
                let status = if method == "PUT" { "201 Created" } else { "202 Accepted" };
                answer(status, location, b"")
            }
        };
        stream.write_all(&reply)
    })
}

fn push(server: &Server, content: &'static [u8], options: &UploadOptions) -> Result<Pushed, Error> {
    push_as(server, content, &digest(content), options)
}

fn push_as(
    server: &Server,
    content: &'static [u8],
    digest: &Digest,
    how: &UploadOptions,
) -> Result<Pushed, Error> {
    let open = move |offset: u64| {
        let rest = &content[usize::try_from(offset).unwrap()..];
        Ok(Box::new(Cursor::new(rest)) as Box<dyn std::io::Read + Send>)
    };
    let blob = Outgoing { digest, size: content.len() as u64, open: &open };
    repository(&client(options()), &server.address).push_blob(&blob, how, &|_| {})
}

fn methods(server: &Server) -> Vec<String> {
    server.requests().iter().map(|request| request.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_blob_is_sent_in_one_piece() {
    let uploads = Arc::default();
    let server = registry(&uploads, false);
    assert_eq!(push(&server, b"0123456789", &UploadOptions::default()).unwrap(), Pushed::Uploaded);
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT"]);
    assert_eq!(uploads.lock().unwrap().received, b"0123456789");
    let last = server.requests().pop().unwrap();
    assert!(last.contains(&format!("&digest=sha256%3A{}", digest(b"0123456789").hex())), "{last}");
}

#[test]
fn a_blob_is_sent_in_chunks() {
    let uploads = Arc::default();
    let server = registry(&uploads, false);
    let options = UploadOptions { chunk: Some(4), ..UploadOptions::default() };
    push(&server, b"0123456789", &options).unwrap();
    assert_eq!(methods(&server), ["HEAD", "POST", "PATCH", "PATCH", "PATCH", "PUT"]);
    assert_eq!(uploads.lock().unwrap().sizes, [4, 4, 2, 0]);
    assert_eq!(uploads.lock().unwrap().received, b"0123456789");
}

#[test]
fn an_interrupted_upload_goes_on_where_it_was() {
    let uploads = Arc::new(Mutex::new(Uploads { take: vec![4], ..Uploads::default() }));
    let server = registry(&uploads, false);
    push(&server, b"0123456789", &UploadOptions::default()).unwrap();
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT", "GET", "PATCH", "PUT"]);
    assert_eq!(uploads.lock().unwrap().sizes, [4, 6, 0]);
    assert_eq!(uploads.lock().unwrap().received, b"0123456789");
}

#[test]
fn an_upload_that_the_registry_has_forgotten_is_begun_again() {
    let uploads = Arc::new(Mutex::new(Uploads { take: vec![4], ..Uploads::default() }));
    let server = registry(&uploads, true);
    push(&server, b"0123456789", &UploadOptions::default()).unwrap();
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT", "GET", "HEAD", "POST", "PUT"]);
    assert_eq!(uploads.lock().unwrap().received, b"0123456789");
}

#[test]
fn what_is_not_as_its_digest_says_is_not_completed() {
    let uploads = Arc::default();
    let server = registry(&uploads, false);
    let wrong = digest(b"something else");
    let error = push_as(&server, b"0123456789", &wrong, &UploadOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error:?}");
    assert!(error.in_full().contains("its content is not what its digest says"), "{}", error.in_full());
}

#[test]
fn wrong_content_is_not_completed_in_chunks_either() {
    let uploads = Arc::default();
    let server = registry(&uploads, false);
    let options = UploadOptions { chunk: Some(4), ..UploadOptions::default() };
    let error = push_as(&server, b"0123456789", &digest(b"something else"), &options).unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error:?}");
    assert!(!methods(&server).contains(&"PUT".to_owned()), "{:?}", methods(&server));
}

#[test]
fn what_went_out_before_an_interruption_is_checked_as_well() {
    let uploads = Arc::new(Mutex::new(Uploads { take: vec![4], ..Uploads::default() }));
    let server = registry(&uploads, false);
    // At first it is as it should be. What the registry has by then is not.
    let (right, wrong): (&[u8], &[u8]) = (b"0123456789", b"x123456789");
    let opened = std::sync::atomic::AtomicUsize::new(0);
    let open = |offset: u64| {
        let first = opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        let content: &'static [u8] = if first { right } else { wrong };
        let rest = &content[usize::try_from(offset).unwrap()..];
        Ok(Box::new(Cursor::new(rest)) as Box<dyn std::io::Read + Send>)
    };
    let blob = Outgoing { digest: &digest(right), size: 10, open: &open };
    let repository = repository(&client(options()), &server.address);
    let error = repository.push_blob(&blob, &UploadOptions::default(), &|_| {}).unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error:?}");
}

/// Answers an upload in order; what is sent with the requests is read.
fn scripted(answers: &[(&'static str, Vec<u8>)]) -> Server {
    let answers = answers.to_vec();
    Server::with(move |request, number, stream| {
        let (method, answer) = &answers[number];
        assert!(request.starts_with(method), "request {number}: {request}");
        body(request, stream, usize::MAX);
        stream.write_all(answer)
    })
}

const TO: &str = "Location: /upload/1\r\n";

fn none() -> Vec<u8> {
    answer("404 Not Found", "", b"")
}

fn in_chunks() -> UploadOptions {
    UploadOptions { chunk: Some(4), ..UploadOptions::default() }
}

#[test]
fn a_chunk_that_does_not_fit_is_sent_where_the_registry_is() {
    let server = scripted(&[
        ("HEAD", none()),
        ("POST", answer("202 Accepted", TO, b"")),
        ("PATCH", answer("202 Accepted", &format!("{TO}Range: 0-1\r\n"), b"")),
        ("PATCH", answer("416 Range Not Satisfiable", &format!("{TO}Range: 0-2\r\n"), b"")),
        ("GET", answer("204 No Content", &format!("{TO}Range: 0-2\r\n"), b"")),
        ("PATCH", answer("202 Accepted", TO, b"")),
        ("PATCH", answer("202 Accepted", TO, b"")),
        ("PUT", answer("201 Created", "", b"")),
    ]);
    push(&server, b"0123456789", &in_chunks()).unwrap();
    let ranges: Vec<_> = server
        .requests()
        .iter()
        .filter_map(|request| Some(request.split_once("content-range: ")?.1.split_once("\r\n")?.0.to_owned()))
        .collect();
    assert_eq!(ranges, ["0-3", "2-5", "3-6", "7-9"]);
}

#[test]
fn a_question_that_fails_is_asked_again() {
    let server = scripted(&[
        ("HEAD", none()),
        ("POST", answer("202 Accepted", TO, b"")),
        ("PATCH", answer("202 Accepted", TO, b"")),
        ("PATCH", answer("503 Service Unavailable", "", b"")),
        ("GET", answer("503 Service Unavailable", "", b"")),
        ("GET", answer("204 No Content", &format!("{TO}Range: 0-3\r\n"), b"")),
        ("PATCH", answer("202 Accepted", TO, b"")),
        ("PATCH", answer("202 Accepted", TO, b"")),
        ("PUT", answer("201 Created", "", b"")),
    ]);
    push(&server, b"0123456789", &in_chunks()).unwrap();
    assert_eq!(server.asked(), 9);
}

#[test]
fn an_upload_whose_answer_was_lost_is_not_repeated() {
    let server = scripted(&[
        ("HEAD", none()),
        ("POST", answer("202 Accepted", TO, b"")),
        ("PUT", Vec::new()),
        ("GET", answer("404 Not Found", "Docker-Distribution-Api-Version: registry/2.0\r\n", b"")),
        ("HEAD", answer("200 OK", "", b"")),
    ]);
    assert_eq!(push(&server, b"x", &UploadOptions::default()).unwrap(), Pushed::Uploaded);
}

#[test]
fn more_than_was_sent_is_not_believed() {
    let mut answers = vec![("HEAD", none()), ("POST", answer("202 Accepted", TO, b""))];
    answers.push(("PATCH", answer("202 Accepted", &format!("{TO}Range: 0-8\r\n"), b"")));
    let error = push(&scripted(&answers), b"0123456789", &in_chunks()).unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}

#[test]
fn chunks_are_as_large_as_the_registry_wants() {
    let server = scripted(&[
        ("HEAD", none()),
        ("POST", answer("202 Accepted", &format!("{TO}OCI-Chunk-Min-Length: 7\r\n"), b"")),
        ("PATCH", answer("202 Accepted", TO, b"")),
        ("PATCH", answer("202 Accepted", TO, b"")),
        ("PUT", answer("201 Created", "", b"")),
    ]);
    push(&server, b"0123456789", &in_chunks()).unwrap();
    assert!(server.requests()[2].contains("content-range: 0-6\r\n"), "{}", server.requests()[2]);
}

#[test]
fn a_registry_that_cannot_say_what_it_has_gets_it() {
    let server = scripted(&[
        ("HEAD", answer("405 Method Not Allowed", "", b"")),
        ("POST", answer("202 Accepted", TO, b"")),
        ("PUT", answer("201 Created", "", b"")),
    ]);
    assert_eq!(push(&server, b"x", &UploadOptions::default()).unwrap(), Pushed::Uploaded);
}

#[test]
fn an_upload_ends_when_nobody_waits_for_it() {
    struct Gone(std::sync::atomic::AtomicBool);
    impl crate::Watch for Gone {
        fn is_stopped(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::SeqCst)
        }
    }
    struct Endless;
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(0);
            Ok(buffer.len())
        }
    }
    let server = Server::with(|request, _, stream| match request.split(' ').next().unwrap_or_default() {
        "HEAD" => stream.write_all(&none()),
        "POST" => stream.write_all(&answer("202 Accepted", TO, b"")),
        _ => io::copy(stream, &mut io::sink()).map(drop),
    });
    let gone = Gone(std::sync::atomic::AtomicBool::new(false));
    let client = client(options());
    let repository = repository(&client, &server.address);
    let open = |_| Ok(Box::new(Endless) as Box<dyn std::io::Read + Send>);
    let blob = Outgoing { digest: &digest(b"x"), size: 1 << 50, open: &open };
    let stop = |_| gone.0.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = repository.watched_by(&gone).push_blob(&blob, &UploadOptions::default(), &stop).unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error:?}");
}

#[test]
fn what_another_repository_has_is_mounted() {
    let server = Server::new(|request, _| match request.split(' ').next().unwrap_or_default() {
        "POST" if request.contains("from=other%2Fone") => answer("201 Created", "", b""),
        "POST" => answer("202 Accepted", "Location: /upload/1\r\n", b""),
        _ => answer("404 Not Found", "", b""),
    });
    let mount_from = vec!["a/b".to_owned(), "other/none".to_owned(), "other/one".to_owned()];
    let options = UploadOptions { mount_from, ..UploadOptions::default() };
    assert_eq!(push(&server, b"x", &options).unwrap(), Pushed::Mounted { from: "other/one".to_owned() });
    assert_eq!(methods(&server), ["HEAD", "POST", "POST"]);
}

#[test]
fn an_upload_to_another_host_shows_it_no_credentials() {
    let storage = Server::with(|request, _, stream| {
        body(request, stream, usize::MAX);
        stream.write_all(&answer("201 Created", "", b""))
    });
    let to = format!("Location: {}\r\n", storage.url("/upload"));
    let server = Server::new(move |request, _| {
        if !request.contains("authorization:") {
            answer("401 Unauthorized", BASIC, b"")
        } else if request.starts_with("POST") {
            answer("202 Accepted", &to, b"")
        } else {
            answer("404 Not Found", "", b"")
        }
    });
    let digest = digest(b"x");
    let open = |_| Ok(Box::new(Cursor::new(b"x")) as Box<dyn std::io::Read + Send>);
    let blob = Outgoing { digest: &digest, size: 1, open: &open };
    let client = client_for(&server);
    let pushed = repository(&client, &server.address).push_blob(&blob, &UploadOptions::default(), &|_| {});
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    let seen = storage.requests();
    assert!(seen.len() == 1 && !seen[0].contains("authorization"), "{seen:?}");
}

#[test]
fn a_manifest_is_put_as_it_is() {
    let taken: Arc<Mutex<Vec<u8>>> = Arc::default();
    let place = Arc::clone(&taken);
    let server = Server::with(move |request, _, stream| {
        *place.lock().unwrap() = body(request, stream, usize::MAX);
        assert!(request.contains("content-type: application/x\r\n"), "{request}");
        stream.write_all(&answer("201 Created", "", b""))
    });
    repository(&client(options()), &server.address)
        .push_manifest(Selector::Tag("1"), "application/x", b"{ \"a\": 1 }\n")
        .unwrap();
    assert_eq!(*taken.lock().unwrap(), b"{ \"a\": 1 }\n");
}
