//! HTTP/1.1 messages: as much of them as the servers of tests need, and a client to look at those with.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No head of a message in a test is longer; in bytes.
const LONGEST_HEAD: u64 = 64 * 1024;

/// The first line and the header fields of a request or an answer.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The request line or the status line.
    pub line: String,
    /// Names as they were sent, in order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The head of an answer.
    pub fn answer(status: u16) -> Self {
        Self { line: format!("HTTP/1.1 {status} {}", reason(status)), headers: Vec::new() }
    }

    /// Reads a head, or nothing when the other side closed the connection instead.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut reader = reader.take(LONGEST_HEAD);
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut head = Self { line: line.trim_end().to_owned(), headers: Vec::new() };
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            head.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Writes the head and the empty line after it.
    pub fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        writer.write_all(text.as_bytes())
    }

    /// The method and the target of a request.
    pub fn request(&self) -> (&str, &str) {
        let mut words = self.line.split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// The status of an answer; 0 if the line has none.
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    /// The first field called `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Puts one field in the place of all that are called `name`.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.into()));
    }

    /// Removes all fields called `name`.
    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// Whether the field `name` has the word `word` in it.
    pub fn says(&self, name: &str, word: &str) -> bool {
        self.get(name).is_some_and(|v| v.split(',').any(|w| w.trim().eq_ignore_ascii_case(word)))
    }

    /// How long the body of this request is.
    pub fn body_of_request(&self) -> Length {
        self.length().unwrap_or(Length::Bytes(0))
    }

    /// How long the body of this answer to a request with `method` is.
    pub fn body_of_answer(&self, method: &str) -> Length {
        if method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304) {
            return Length::Bytes(0);
        }
        self.length().unwrap_or(Length::UntilClosed)
    }

    fn length(&self) -> Option<Length> {
        if self.says("Transfer-Encoding", "chunked") {
            return Some(Length::Chunked);
        }
        self.get("Content-Length").and_then(|n| n.parse().ok()).map(Length::Bytes)
    }
}

/// The first of `headers` called `name`.
pub fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// It is this many bytes long.
    Bytes(u64),
    /// The last chunk is empty.
    Chunked,
    /// The sender closes the connection.
    UntilClosed,
}

/// Reads one body and nothing after it.
#[derive(Debug)]
pub struct Body<R> {
    reader: R,
    length: Length,
    /// Bytes left, of the body or of the chunk.
    left: u64,
    ended: bool,
}

impl<R: BufRead> Body<R> {
    /// A body that begins where `reader` is.
    pub fn new(reader: R, length: Length) -> Self {
        let left = if let Length::Bytes(n) = length { n } else { 0 };
        Self { reader, length, left, ended: false }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let mut line = String::new();
        (&mut self.reader).take(1024).read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        self.left = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        if self.left == 0 {
            self.ended = true;
            self.line_ends()?;
        }
        Ok(())
    }

    fn line_ends(&mut self) -> io::Result<()> {
        let mut end = [0; 2];
        self.reader.read_exact(&mut end)?;
        if &end == b"\r\n" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.length == Length::UntilClosed {
            return self.reader.read(buffer);
        }
        if self.length == Length::Chunked && self.left == 0 && !self.ended {
            self.next_chunk()?;
        }
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.reader.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        if self.length == Length::Chunked && self.left == 0 {
            self.line_ends()?;
        }
        Ok(n)
    }
}

/// Writes a piece of a body.
pub fn write_piece(writer: &mut impl Write, length: Length, bytes: &[u8]) -> io::Result<()> {
    if length != Length::Chunked {
        return writer.write_all(bytes);
    }
    if bytes.is_empty() {
        return Ok(());
    }
    write!(writer, "{:x}\r\n", bytes.len())?;
    writer.write_all(bytes)?;
    writer.write_all(b"\r\n")
}

/// Writes what comes after the last piece of a body.
pub fn write_end(writer: &mut impl Write, length: Length) -> io::Result<()> {
    if length == Length::Chunked { writer.write_all(b"0\r\n\r\n") } else { Ok(()) }
}

/// An answer as a client got it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: Vec<(String, String)>,
    /// The bytes of its body that came.
    pub body: Vec<u8>,
    /// Why the body did not end as its head says, if it did not.
    pub broken: Option<io::ErrorKind>,
}

impl Answer {
    /// The first header field called `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// The types of manifests, without which a registry says that it has no such image.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";

/// Sends one request over a connection of its own and reads the answer, of manifests any type. Gives up after 30 seconds of silence.
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = Head { line: format!("{method} {target} HTTP/1.1"), headers: Vec::new() };
    head.set("Host", address.to_string());
    head.set("Connection", "close");
    head.set("Accept", ACCEPT);
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        head.set("Content-Length", body.len().to_string());
    }
    for (name, value) in headers {
        head.set(name, *value);
    }
    head.write(&mut &stream)?;
    // A server that refuses a request need not read its body.
    let sent = (&stream).write_all(body);
    let mut reader = BufReader::new(&stream);
    let head = loop {
        match Head::read(&mut reader)? {
            // `100 Continue` and the like precede the answer.
            Some(head) if head.status() < 200 => {}
            Some(head) => break head,
            None => {
                sent?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let mut body = Vec::new();
    let broken = Body::new(&mut reader, head.body_of_answer(method)).read_to_end(&mut body).err();
    Ok(Answer { status: head.status(), headers: head.headers, body, broken: broken.map(|e| e.kind()) })
}

/// GETs `target`.
pub fn get(address: SocketAddr, target: &str) -> io::Result<Answer> {
    request(address, "GET", target, &[], &[])
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        302 => "Found",
        307 => "Temporary Redirect",
        401 => "Unauthorized",
        404 => "Not Found",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, length: Length) -> (io::Result<usize>, Vec<u8>, String) {
        let mut reader = text.as_bytes();
        let mut body = Vec::new();
        let result = Body::new(&mut reader, length).read_to_end(&mut body);
        (result, body, String::from_utf8(reader.to_vec()).unwrap())
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        let (result, body, rest) = read("hello, next", Length::Bytes(5));
        assert_eq!((result.unwrap(), &body[..], rest.as_str()), (5, &b"hello"[..], ", next"));
        let (result, body, rest) = read("3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\nnext", Length::Chunked);
        assert_eq!((result.unwrap(), &body[..], rest.as_str()), (13, &b"abc0123456789"[..], "next"));
    }

    #[test]
    fn a_body_that_is_cut_is_an_error() {
        for (text, length) in
            [("hell", Length::Bytes(5)), ("3\r\nabc\r\n", Length::Chunked), ("3\r\nab", Length::Chunked)]
        {
            let (result, ..) = read(text, length);
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_in_pieces_is_read_as_one_body() {
        for length in [Length::Chunked, Length::Bytes(6), Length::UntilClosed] {
            let mut sent = Vec::new();
            for piece in ["ab", "", "cdef"] {
                write_piece(&mut sent, length, piece.as_bytes()).unwrap();
            }
            write_end(&mut sent, length).unwrap();
            let (_, body, rest) = read(std::str::from_utf8(&sent).unwrap(), length);
            assert_eq!((&body[..], rest.as_str()), (&b"abcdef"[..], ""), "{length:?}");
        }
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let mut head = Head::answer(206);
        head.set("Content-Length", "7");
        head.set("content-length", "8");
        let mut sent = Vec::new();
        head.write(&mut sent).unwrap();
        let back = Head::read(&mut &sent[..]).unwrap().unwrap();
        assert_eq!((back.status(), back.get("CONTENT-LENGTH")), (206, Some("8")));
        assert_eq!(back.body_of_answer("GET"), Length::Bytes(8));
        assert_eq!(back.body_of_answer("HEAD"), Length::Bytes(0));
        assert!(Head::read(&mut &b""[..]).unwrap().is_none());
    }
}
