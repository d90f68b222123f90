//! The faults as a client sees them, with a [`Bucket`] for upstream.

use std::io::{ErrorKind, Read, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use super::*;
use crate::bucket::Bucket;
use crate::http::{Answer, get, request};
use crate::image::Layout;

const DATA: &[u8] = b"0123456789abcdef";

struct Setup {
    _bucket: Bucket,
    proxy: FaultProxy,
    target: String,
}

impl Setup {
    fn new() -> Self {
        let mut layout = Layout::new();
        let target = format!("/v2/a/blobs/{}", layout.blob(DATA));
        let bucket = Bucket::start(&layout);
        let proxy = FaultProxy::start(bucket.address());
        Self { _bucket: bucket, proxy, target }
    }

    fn get(&self) -> Answer {
        get(self.proxy.address(), &self.target).unwrap()
    }

    fn broken(fault: Fault) -> Answer {
        let setup = Self::new();
        setup.proxy.on(Match::get("/blobs/"), fault);
        setup.get()
    }
}

fn seen(answer: &Answer) -> (u16, &str, Option<ErrorKind>) {
    (answer.status, std::str::from_utf8(&answer.body).unwrap(), answer.broken)
}

#[test]
fn without_a_rule_all_goes_through() {
    let setup = Setup::new();
    assert_eq!(seen(&setup.get()), (200, "0123456789abcdef", None));
    let headers = [("Range", "bytes=10-"), ("X-Mine", "yes")];
    let answer = request(setup.proxy.address(), "GET", &setup.target, &headers, b"").unwrap();
    assert_eq!(seen(&answer), (206, "abcdef", None));
    let head = request(setup.proxy.address(), "HEAD", &setup.target, &[], b"").unwrap();
    assert_eq!((seen(&head), head.header("content-length")), ((200, "", None), Some("16")));

    let traffic = setup.proxy.traffic();
    assert_eq!(traffic.count("GET", "/blobs/"), 2);
    assert_eq!(traffic.bytes_served("/blobs/"), 22);
    assert_eq!(traffic.exchanges()[1].header("x-mine"), Some("yes"));
    traffic.clear();
    assert!(traffic.requests().is_empty());
}

#[test]
fn several_requests_come_over_one_connection() {
    use std::io::Write;
    let setup = Setup::new();
    let mut stream = std::net::TcpStream::connect(setup.proxy.address()).unwrap();
    for _ in 0..3 {
        write!(stream, "GET {} HTTP/1.1\r\nHost: a\r\n\r\n", setup.target).unwrap();
        let mut reader = std::io::BufReader::new(&stream);
        let head = crate::http::Head::read(&mut reader).unwrap().unwrap();
        let mut body = Vec::new();
        crate::http::Body::new(reader, head.body_of_answer("GET")).read_to_end(&mut body).unwrap();
        assert_eq!(body, DATA);
    }
}

#[test]
fn a_body_is_cut() {
    let cut = Some(ErrorKind::UnexpectedEof);
    assert_eq!(seen(&Setup::broken(Fault::Cut { after: 5 })), (200, "01234", cut));
    assert_eq!(seen(&Setup::broken(Fault::Truncate { after: 5 })), (200, "01234", None));
    assert_eq!(seen(&Setup::broken(Fault::WrongLength { by: 1 })), (200, "0123456789abcdef", cut));
    assert_eq!(seen(&Setup::broken(Fault::WrongLength { by: -6 })), (200, "0123456789", None));
}

#[test]
fn a_connection_is_reset() {
    let answer = Setup::broken(Fault::Reset { after: 5 });
    assert_eq!(answer.broken, Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_body_stops_until_the_proxy_is_dropped() {
    let setup = Setup::new();
    setup.proxy.on(Match::any(), Fault::Stall { after: 5 });
    let mut client = TcpStream::connect(setup.proxy.address()).unwrap();
    write!(client, "GET {} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n", setup.target).unwrap();
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(b"\r\n\r\n01234") {
        client.read_exact(&mut byte).unwrap();
        seen.extend(byte);
    }
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    drop(setup);
    // However the connection ends, nothing more comes.
    assert_eq!(client.read(&mut byte).unwrap_or(0), 0);
}

#[test]
fn a_body_drips_and_a_request_is_delayed() {
    let start = Instant::now();
    let every = std::time::Duration::from_millis(2);
    assert_eq!(seen(&Setup::broken(Fault::Drip { bytes: 3, every })), (200, "0123456789abcdef", None));
    assert!(start.elapsed() >= 5 * every);
    let start = Instant::now();
    assert_eq!(seen(&Setup::broken(Fault::Delay(every))), (200, "0123456789abcdef", None));
    assert!(start.elapsed() >= every);
}

#[test]
fn bytes_and_their_framing_change() {
    assert_eq!(Setup::broken(Fault::Flip { at: 3 }).body, *b"012\xcc456789abcdef");
    let answer = Setup::broken(Fault::NoLength);
    assert_eq!(seen(&answer), (200, "0123456789abcdef", None));
    assert_eq!(answer.header("Content-Length"), None);
}

#[test]
fn an_answer_comes_from_the_proxy() {
    let answer = Setup::broken(Fault::status_with(429, "Retry-After", "7"));
    assert_eq!((answer.status, answer.header("Retry-After")), (429, Some("7")));
    assert!(answer.body.starts_with(br#"{"errors""#));
    let answer = Setup::broken(Fault::Redirect { status: 307, to: "http://elsewhere:1".to_owned() });
    assert!(answer.header("Location").unwrap().starts_with("http://elsewhere:1/v2/a/blobs/sha256:"));
    let flood = Fault::Flood { media_type: "text/plain".to_owned(), length: Some(1 << 20) };
    let answer = Setup::broken(flood);
    assert_eq!((answer.body.len(), answer.header("Content-Type")), (1 << 20, Some("text/plain")));
}

#[test]
fn a_flood_without_a_length_ends_with_the_client() {
    let setup = Setup::new();
    setup.proxy.on(Match::any(), Fault::Flood { media_type: "text/plain".to_owned(), length: None });
    let stream = std::net::TcpStream::connect(setup.proxy.address()).unwrap();
    std::io::Write::write_all(&mut &stream, b"GET /manifests/a HTTP/1.1\r\n\r\n").unwrap();
    (&stream).take(1 << 20).read_to_end(&mut Vec::new()).unwrap();
    drop(stream);
    drop(setup);
}

#[test]
fn a_range_is_ignored_or_misreported() {
    let ask = |fault| {
        let setup = Setup::new();
        setup.proxy.on(Match::any(), fault);
        request(setup.proxy.address(), "GET", &setup.target, &[("Range", "bytes=10-")], b"").unwrap()
    };
    assert_eq!(seen(&ask(Fault::IgnoreRange)), (200, "0123456789abcdef", None));
    let answer = ask(Fault::WrongRange("bytes 3-8/16".to_owned()));
    assert_eq!(seen(&answer), (206, "abcdef", None));
    assert_eq!(answer.header("Content-Range"), Some("bytes 3-8/16"));
}

#[test]
fn there_is_no_answer() {
    let setup = Setup::new();
    setup.proxy.on(Match::any().first(1), Fault::HangUp).on(Match::any().nth(2), Fault::LoseAnswer);
    for _ in 0..2 {
        let error = get(setup.proxy.address(), &setup.target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
    assert_eq!(seen(&setup.get()), (200, "0123456789abcdef", None));
}

#[test]
fn a_header_field_changes() {
    let name = || "Content-Type".to_owned();
    let answer = Setup::broken(Fault::Header { name: name(), value: Some("text/odd".to_owned()) });
    assert_eq!(answer.header("content-type"), Some("text/odd"));
    assert_eq!(Setup::broken(Fault::Header { name: name(), value: None }).header("content-type"), None);
}

#[test]
fn a_dead_upstream_is_a_bad_gateway() {
    let setup = Setup::new();
    let Setup { _bucket: bucket, proxy, target } = setup;
    drop(bucket);
    assert_eq!(get(proxy.address(), &target).unwrap().status, 502);
}
