//! Carries requests to the upstream and answers back, with the faults of the rules.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::rule::{Fault, pick};
use crate::http::{Body, Head, Length, write_end, write_piece};
use crate::server::Stop;

const BUFFER: usize = 64 * 1024;

/// Serves the requests of one connection.
pub(super) fn serve(shared: &Shared, client: &Arc<TcpStream>, stop: &Stop) -> io::Result<()> {
    let mut reader = BufReader::new(&**client);
    while let Some(head) = Head::read(&mut reader)? {
        let (method, target) = head.request();
        let fault = pick(&mut shared.rules.lock().unwrap(), method, target);
        let place = shared.traffic.begin(&head);
        let mut relay = Relay { shared, stop, client, reader: &mut reader, head: &head, fault, place };
        let then = relay.run();
        shared.traffic.end(place);
        if then? == Then::Close || head.says("Connection", "close") {
            break;
        }
    }
    Ok(())
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Keep,
    Close,
}

/// One request under way.
struct Relay<'a, 'c> {
    shared: &'a Shared,
    stop: &'a Stop,
    client: &'a TcpStream,
    reader: &'a mut BufReader<&'c TcpStream>,
    head: &'a Head,
    fault: Option<Fault>,
    place: usize,
}

impl Relay<'_, '_> {
    fn run(&mut self) -> io::Result<Then> {
        match self.fault.clone() {
            Some(Fault::HangUp) => return Ok(Then::Close),
            Some(Fault::Delay(time)) => self.stop.wait(time)?,
            Some(Fault::Answer { status, headers, body }) => {
                return self.answer_alone(status, headers, &body[..], Some(body.len() as u64));
            }
            Some(Fault::Redirect { status, to }) => {
                let location = format!("{to}{}", self.head.request().1);
                return self.answer_alone(status, vec![("Location".to_owned(), location)], &b""[..], Some(0));
            }
            Some(Fault::Flood { media_type, length }) => {
                let body = (&b"{"[..]).chain(io::repeat(b' '));
                let headers = vec![("Content-Type".to_owned(), media_type)];
                return match length {
                    Some(n) => self.answer_alone(200, headers, body.take(n), length),
                    None => self.answer_alone(200, headers, body, None),
                };
            }
            _ => {}
        }
        self.forward()
    }

    /// Answers without the upstream. Without a length the body is sent in chunks.
    fn answer_alone(
        &mut self,
        status: u16,
        headers: Vec<(String, String)>,
        body: impl Read,
        length: Option<u64>,
    ) -> io::Result<Then> {
        // A client that waits for leave to send its body does not send it, so its next bytes are none of it.
        let waits = self.head.says("Expect", "100-continue");
        if !waits {
            self.copy_request(&mut io::sink(), u64::MAX)?;
        }
        let mut head = Head { headers, ..Head::answer(status) };
        let length = if let Some(n) = length {
            head.set("Content-Length", n.to_string());
            Length::Bytes(n)
        } else {
            head.set("Transfer-Encoding", "chunked");
            Length::Chunked
        };
        if waits {
            head.set("Connection", "close");
        }
        let has_body = self.head.request().0 != "HEAD" && length != Length::Bytes(0);
        self.send_head(&head, has_body)?;
        let then = if has_body { self.send_body(body, length)? } else { Then::Keep };
        Ok(if waits { Then::Close } else { then })
    }

    fn forward(&mut self) -> io::Result<Then> {
        let (method, _) = self.head.request();
        let Ok(upstream) = TcpStream::connect(self.shared.upstream) else {
            return self.answer_alone(502, Vec::new(), &b""[..], Some(0));
        };
        let upstream = self.stop.track(upstream)?;
        let mut answers = BufReader::new(&*upstream);
        let mut head = self.head.clone();
        for hop in ["Connection", "Keep-Alive", "Proxy-Connection", "TE"] {
            head.remove(hop);
        }
        head.set("Connection", "close");
        if let Some(Fault::IgnoreRange) = self.fault {
            head.remove("Range");
        }
        head.write(&mut &*upstream)?;

        let mut early = None;
        if head.says("Expect", "100-continue") {
            let answer = read_answer(&mut answers)?;
            if answer.status() == 100 {
                answer.write(&mut &*self.client)?;
            } else {
                early = Some(answer);
            }
        }
        if early.is_none() {
            let limit = if let Some(Fault::CutUpload { after }) = self.fault { after } else { u64::MAX };
            self.copy_request(&mut &*upstream, limit)?;
            if limit != u64::MAX {
                return cut_upload(&upstream);
            }
        }
        let mut answer = match early.take() {
            Some(answer) => answer,
            None => read_answer(&mut answers)?,
        };
        while answer.status() < 200 {
            answer = read_answer(&mut answers)?;
        }
        let length = answer.body_of_answer(method);
        self.pass_back(answer, Body::new(&mut answers, length), length)
    }

    /// Copies the request's body, at most `limit` bytes of it, framed as it came.
    fn copy_request(&mut self, to: &mut impl Write, limit: u64) -> io::Result<()> {
        let length = self.head.body_of_request();
        let mut body = Body::new(&mut *self.reader, length).take(limit);
        let mut buffer = vec![0; BUFFER];
        // An upstream that has made up its mind closes its end early. Its answer is still to be read.
        let mut is_open = true;
        loop {
            let n = body.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            self.shared.traffic.note(self.place, |exchange| exchange.received += n as u64);
            is_open = is_open && write_piece(to, length, &buffer[..n]).is_ok();
        }
        if is_open && limit == u64::MAX {
            write_end(to, length).ok();
        }
        Ok(())
    }

    /// Sends the upstream's answer to the client.
    fn pass_back(&mut self, mut head: Head, body: impl Read, length: Length) -> io::Result<Then> {
        if let Some(Fault::LoseAnswer) = self.fault {
            return Ok(Then::Close);
        }
        head.remove("Connection");
        if let Some(location) = head.get("Location") {
            let upstream = format!("http://{}/", self.shared.upstream);
            let own = format!("http://{}/", self.client.local_addr()?);
            let location = location.replace(&upstream, &own);
            head.set("Location", location);
        }
        let announced = head.get("Content-Length").and_then(|n| n.parse::<u64>().ok());
        let (mut length, mut then) = (length, None);
        match (&self.fault, announced) {
            (Some(Fault::WrongLength { by }), Some(n)) => {
                head.set("Content-Length", n.saturating_add_signed(*by).to_string());
                then = Some(Then::Close);
            }
            (Some(Fault::Truncate { after }), Some(n)) => {
                head.set("Content-Length", n.min(*after).to_string());
                if let Length::Bytes(n) = &mut length {
                    *n = (*n).min(*after);
                }
            }
            (Some(Fault::WrongRange(range)), _) => {
                head.line = Head::answer(206).line;
                head.set("Content-Range", range);
            }
            (Some(Fault::Header { name, value }), _) => {
                head.remove(name);
                head.headers.extend(value.clone().map(|value| (name.clone(), value)));
            }
            _ => {}
        }
        let has_body = length != Length::Bytes(0);
        if length == Length::UntilClosed || has_body && matches!(self.fault, Some(Fault::NoLength)) {
            head.remove("Content-Length");
            head.set("Transfer-Encoding", "chunked");
            length = Length::Chunked;
        }
        self.send_head(&head, has_body)?;
        let sent = self.send_body(body, length)?;
        Ok(then.unwrap_or(sent))
    }

    fn send_head(&self, head: &Head, has_body: bool) -> io::Result<()> {
        if !has_body {
            self.shared.traffic.end(self.place);
        }
        self.shared.traffic.note(self.place, |exchange| exchange.status = Some(head.status()));
        head.write(&mut &*self.client)
    }

    fn send_body(&mut self, mut body: impl Read, length: Length) -> io::Result<Then> {
        let limit = match self.fault {
            Some(
                Fault::Cut { after }
                | Fault::Reset { after }
                | Fault::Stall { after }
                | Fault::Truncate { after },
            ) => after,
            _ => u64::MAX,
        };
        let (piece, wait) = match self.fault {
            Some(Fault::Drip { bytes, every }) => (bytes, Some(every)),
            _ => (BUFFER, None),
        };
        let mut buffer = vec![0; piece];
        let mut sent = 0;
        while sent < limit {
            let most = piece.min(usize::try_from(limit - sent).unwrap_or(usize::MAX));
            let n = body.read(&mut buffer[..most])?;
            if n == 0 {
                break;
            }
            if let Some(Fault::Flip { at }) = self.fault {
                let place = at.checked_sub(sent).and_then(|place| usize::try_from(place).ok());
                if let Some(byte) = place.and_then(|place| buffer[..n].get_mut(place)) {
                    *byte ^= 0xff;
                }
            }
            // Noted before the client can have it and look.
            sent += n as u64;
            self.shared.traffic.note(self.place, |exchange| exchange.sent = sent);
            if length == Length::Bytes(sent) {
                self.shared.traffic.end(self.place);
            }
            if let Err(error) = write_piece(&mut &*self.client, length, &buffer[..n]) {
                self.shared.traffic.note(self.place, |exchange| exchange.sent -= n as u64);
                return Err(error);
            }
            if let Some(wait) = wait {
                self.stop.wait(wait)?;
            }
        }
        match self.fault {
            Some(Fault::Cut { .. }) => Ok(Then::Close),
            Some(Fault::Reset { .. }) => {
                // The kernel resets a connection that is closed with nothing to linger for.
                rustix::net::sockopt::set_socket_linger(self.client, Some(Duration::ZERO))?;
                Ok(Then::Close)
            }
            Some(Fault::Stall { .. }) => {
                // Until the client gives up or the proxy is dropped.
                io::copy(self.reader, &mut io::sink()).ok();
                Ok(Then::Close)
            }
            _ => {
                self.shared.traffic.end(self.place);
                write_end(&mut &*self.client, length).map(|()| Then::Keep)
            }
        }
    }
}

fn read_answer(reader: &mut BufReader<&TcpStream>) -> io::Result<Head> {
    Head::read(reader)?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

/// Lets the upstream come to its end with what it has, so that a client that asks again finds that.
fn cut_upload(upstream: &TcpStream) -> io::Result<Then> {
    upstream.shutdown(Shutdown::Write)?;
    upstream.set_read_timeout(Some(Duration::from_secs(10)))?;
    io::copy(&mut &*upstream, &mut io::sink()).ok();
    Ok(Then::Close)
}
