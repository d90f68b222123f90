//! A server of blobs that is not the registry: where redirects of a registry lead.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::http::Head;
use crate::image::Layout;
use crate::server::Server;
use crate::traffic::Traffic;

/// Serves each blob at any path that ends in its digest, whole or from a byte on (`Range: bytes=N-` and `N-M`), to
/// anyone who asks. A [`crate::fault_proxy::FaultProxy`] may stand before it.
#[derive(Debug)]
pub struct Bucket {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    blobs: BTreeMap<String, Vec<u8>>,
    traffic: Traffic,
}

impl Bucket {
    /// Serves the blobs of `layout` on a free port of 127.0.0.1.
    pub fn start(layout: &Layout) -> Self {
        let shared = Arc::new(Shared { blobs: layout.blobs.clone(), traffic: Traffic::default() });
        let of_server = Arc::clone(&shared);
        let server = Server::start(move |client, _| serve(&of_server, client));
        Self { server, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// What was asked of it, with the header fields that came along.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }
}

fn serve(shared: &Shared, client: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    while let Some(request) = Head::read(&mut reader)? {
        let place = shared.traffic.begin(&request);
        let (method, target) = request.request();
        let path = target.split('?').next().unwrap_or_default();
        let digest = path.rsplit('/').next().unwrap_or_default().replace("%3A", ":");
        let (mut head, body) = match shared.blobs.get(&digest) {
            Some(blob) => answer(blob, request.get("Range")),
            None => (Head::answer(404), &b""[..]),
        };
        head.set("Content-Length", body.len().to_string());
        shared.traffic.note(place, |exchange| exchange.status = Some(head.status()));
        let mut client = client;
        let body = if method == "HEAD" { &[] } else { body };
        // Noted before the client can have it all and look here.
        shared.traffic.note(place, |exchange| exchange.sent = body.len() as u64);
        let (most, last) = body.split_at(body.len().saturating_sub(1));
        if most.is_empty() {
            shared.traffic.end(place);
        }
        head.write(&mut client)?;
        client.write_all(most)?;
        shared.traffic.end(place);
        client.write_all(last)?;
    }
    Ok(())
}

fn answer<'a>(blob: &'a [u8], range: Option<&str>) -> (Head, &'a [u8]) {
    let bounds = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = bounds else { return (Head::answer(200), blob) };
    let first = first.parse().unwrap_or(usize::MAX);
    let end = last.parse::<usize>().map_or(blob.len(), |last| blob.len().min(last.saturating_add(1)));
    let Some(part) = blob.get(first..end).filter(|part| !part.is_empty()) else {
        let mut head = Head::answer(416);
        head.set("Content-Range", format!("bytes */{}", blob.len()));
        return (head, &[]);
    };
    let mut head = Head::answer(206);
    head.set("Content-Range", format!("bytes {first}-{}/{}", end - 1, blob.len()));
    (head, part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{get, request};

    #[test]
    fn a_blob_is_served_whole_or_from_a_byte_on() {
        let mut layout = Layout::new();
        let digest = layout.blob(b"0123456789");
        let bucket = Bucket::start(&layout);
        let target = format!("/any/where/{digest}?signed=1");
        assert_eq!(get(bucket.address(), &target).unwrap().body, b"0123456789");
        for (range, status, body, content_range) in [
            ("bytes=4-", 206, "456789", "bytes 4-9/10"),
            ("bytes=4-5", 206, "45", "bytes 4-5/10"),
            ("bytes=10-", 416, "", "bytes */10"),
        ] {
            let answer = request(bucket.address(), "GET", &target, &[("Range", range)], b"").unwrap();
            assert_eq!((answer.status, &answer.body[..]), (status, body.as_bytes()), "{range}");
            assert_eq!(answer.header("Content-Range"), Some(content_range));
        }
        assert_eq!(get(bucket.address(), "/any/sha256:00").unwrap().status, 404);
        assert_eq!(bucket.traffic().bytes_served(&digest), 18);
    }
}
