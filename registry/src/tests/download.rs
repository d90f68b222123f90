use super::*;
use crate::{Download, Error, Notice, Watch};

const CONTENT: &[u8] = b"0123456789";

fn partial(first: usize, body: &[u8]) -> Vec<u8> {
    let last = CONTENT.len() - 1;
    let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", CONTENT.len());
    claiming("206 Partial Content", &range, body, CONTENT.len() - first)
}

/// Reads as much as there is.
fn read(download: &mut Download<'_>) -> (Vec<u8>, io::Result<usize>) {
    let mut bytes = Vec::new();
    let result = download.read_to_end(&mut bytes);
    (bytes, result)
}

fn download_from(server: &Server, offset: usize) -> Result<Vec<u8>, Error> {
    let repository = repository(&client(options()), &server.address);
    let mut download = repository.download(&digest(CONTENT), CONTENT.len() as u64, offset as u64);
    match read(&mut download) {
        (bytes, Ok(_)) => Ok(bytes),
        (_, Err(error)) => Err(download.into_error(error)),
    }
}

#[test]
fn a_cut_download_goes_on_where_it_was() {
    let server = Server::new(|request, _| match range(request) {
        None => claiming("200 OK", "", &CONTENT[..3], CONTENT.len()),
        Some(3) => partial(3, &CONTENT[3..7]),
        Some(first) => partial(first, &CONTENT[first..]),
    });
    assert_eq!(download_from(&server, 0).unwrap(), CONTENT);
    let ranges: Vec<_> = server.requests().iter().map(|request| range(request)).collect();
    assert_eq!(ranges, [None, Some(3), Some(7)]);
}

#[test]
fn a_server_without_ranges_is_read_past_what_is_there() {
    let server = Server::always(answer("200 OK", "", CONTENT));
    assert_eq!(download_from(&server, 4).unwrap(), &CONTENT[4..]);
    assert_eq!(server.asked(), 1);
}

#[test]
fn a_cut_within_what_is_skipped_counts_what_came() {
    let server = Server::always(claiming("200 OK", "", &CONTENT[..2], CONTENT.len()));
    let error = download_from(&server, 5).unwrap_err();
    // The client may notice by itself that the length is not kept.
    assert!(matches!(error, Error::Cut { received: 2, .. } | Error::Read { .. }), "{error:?}");
    assert_eq!(server.asked(), 5);
}

#[test]
fn a_range_that_is_another_or_refused_makes_us_ask_for_all() {
    for wrong in [
        answer("416 Range Not Satisfiable", "", b""),
        partial(3, &CONTENT[3..]),
        answer("206 Partial Content", "", &CONTENT[5..]),
        answer("206 Partial Content", "Content-Range: bytes 5-9/11\r\n", &CONTENT[5..]),
    ] {
        let server = Server::new(move |request, _| match range(request) {
            Some(_) => wrong.clone(),
            None => answer("200 OK", "", CONTENT),
        });
        assert_eq!(download_from(&server, 5).unwrap(), &CONTENT[5..]);
        assert_eq!(server.asked(), 2);
    }
}

#[test]
fn empty_answers_come_to_an_end() {
    for empty in [
        answer("206 Partial Content", "Content-Range: bytes 5-9/10\r\n", b""),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(),
    ] {
        let server = Server::always(empty);
        assert!(matches!(download_from(&server, 5).unwrap_err(), Error::Cut { .. }));
        assert_eq!(server.asked(), 5);
    }
}

#[test]
fn no_more_than_the_size_is_read() {
    let endless = [&b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"[..], &[b'x'; 1000]].concat();
    assert_eq!(download_from(&Server::always(endless), 0).unwrap(), [b'x'; 10]);
    let long = Server::always(answer("200 OK", "", &[b'x'; 11]));
    assert!(matches!(download_from(&long, 0).unwrap_err(), Error::Protocol { .. }));
}

#[test]
fn nothing_is_asked_for_when_all_is_there() {
    let server = Server::always(answer("500 Internal Server Error", "", b""));
    assert_eq!(download_from(&server, 10).unwrap(), b"");
    assert_eq!(download_from(&server, 11).unwrap(), b"");
    assert_eq!(server.asked(), 0);
}

#[test]
fn a_server_that_always_wants_us_to_wait_is_given_up() {
    let busy = |seconds: &str| {
        Server::always(answer("429 Too Many Requests", &format!("Retry-After: {seconds}\r\n"), b""))
    };
    let soon = busy("0");
    assert!(matches!(download_from(&soon, 0).unwrap_err(), Error::TooManyRequests { .. }));
    assert_eq!(soon.asked(), 5);
    for long in ["3600", "18446744073709551615", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let server = busy(long);
        assert!(matches!(download_from(&server, 0).unwrap_err(), Error::TooManyRequests { .. }));
        assert_eq!(server.asked(), 1, "{long}");
    }
}

#[test]
fn a_drip_is_given_up() {
    let drip = |head: &'static str| {
        Server::with(move |_, _, stream| {
            stream.write_all(head.as_bytes())?;
            loop {
                stream.write_all(b" ")?;
                thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let retry = Retry { attempts: 1, stall: Duration::from_millis(100), least_rate: 100_000, ..quick() };
    let client = client(Options { retry, ..options() });
    let server = drip("HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n");
    let repository_of = |server: &Server| repository(&client, &server.address);
    let repository = repository_of(&server);
    let error = repository.manifest(crate::Selector::Digest(&digest(b""))).unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
    let mut download = repository.download(&digest(b""), 4_000_000, 0);
    let error = read(&mut download).1.unwrap_err();
    assert!(matches!(download.into_error(error), Error::Stalled { .. }));
    // A body after HEAD would be taken for the next answer, were the connection kept.
    let server = drip("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 4000000\r\n\r\n");
    let error = repository_of(&server).resolve("1").unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    let error = repository_of(&server).manifest(crate::Selector::Tag("1")).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
}

#[test]
fn nothing_says_where_a_redirect_led() {
    struct Ear(Mutex<Vec<Notice>>);
    impl Watch for Ear {
        fn notice(&self, notice: Notice) {
            self.0.lock().unwrap().push(notice);
        }
    }
    let storage = Server::always(claiming("200 OK", "", &CONTENT[..3], CONTENT.len()));
    let signed = storage.url(&format!("/blob?signature={MARKER}"));
    let registry = Server::new(move |_, _| leads_to(&signed));
    let ear = Ear(Mutex::default());
    let repository = repository(&client(options()), &registry.address);
    let repository = repository.watched_by(&ear);
    let mut download = repository.download(&digest(CONTENT), CONTENT.len() as u64, 0);
    let error = read(&mut download).1.unwrap_err();
    assert!(storage.asked() > 1);
    let shown = format!("{error} {error:?} {download:?} {:?}", ear.0.lock().unwrap());
    let error = download.into_error(error);
    let shown = format!("{shown} {error:?} {}", error.in_full());
    assert!(!shown.contains(MARKER), "{shown}");
    let nowhere = Server::new(|_, _| leads_to(&format!("http://127.0.0.1:1/blob?signature={MARKER}")));
    let error = download_from(&nowhere, 0).unwrap_err();
    assert!(!format!("{error:?} {}", error.in_full()).contains(MARKER), "{error:?}");
}

#[test]
fn a_download_that_is_stopped_connects_no_more() {
    struct Stopped;
    impl Watch for Stopped {
        fn is_stopped(&self) -> bool {
            true
        }
    }
    let server = Server::always(answer("200 OK", "", CONTENT));
    let repository = repository(&client(options()), &server.address);
    let repository = repository.watched_by(&Stopped);
    let mut download = repository.download(&digest(CONTENT), CONTENT.len() as u64, 0);
    let error = read(&mut download).1.unwrap_err();
    assert!(matches!(download.into_error(error), Error::Stopped));
    assert_eq!(server.asked(), 0);
}
