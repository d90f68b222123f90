//! Which requests break, and how.

use std::time::Duration;

/// Which requests a fault is for. By default all that match the method and the part of the target.
#[derive(Clone, Debug)]
pub struct Match {
    method: String,
    part: String,
    skip: u32,
    times: Option<u32>,
}

impl Match {
    /// Requests with this method and with `part` in their path and query. An empty word matches all.
    pub fn new(method: &str, part: &str) -> Self {
        Self { method: method.to_owned(), part: part.to_owned(), skip: 0, times: None }
    }

    /// All requests.
    pub fn any() -> Self {
        Self::new("", "")
    }

    /// GET requests with `part` in their path and query.
    pub fn get(part: &str) -> Self {
        Self::new("GET", part)
    }

    /// Only the first `n` of them.
    #[must_use]
    pub fn first(self, n: u32) -> Self {
        Self { skip: 0, times: Some(n), ..self }
    }

    /// Only the `n`th of them, counted from 1.
    #[must_use]
    pub fn nth(self, n: u32) -> Self {
        Self { skip: n - 1, times: Some(1), ..self }
    }

    /// The `n`th of them, counted from 1, and all after it.
    #[must_use]
    pub fn since(self, n: u32) -> Self {
        Self { skip: n - 1, times: None, ..self }
    }
}

/// What goes wrong. Counts are in bytes; those of a body are of the body as it is sent to the client, without the
/// framing of chunks.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Closes the connection after so many bytes of the answer's body. The head promises all.
    Cut {
        /// Bytes that are sent.
        after: u64,
    },
    /// The same by a reset of the connection, which may also take back bytes that the client has not read.
    Reset {
        /// Bytes that are sent.
        after: u64,
    },
    /// Sends nothing more after so many bytes of the answer's body, but keeps the connection open.
    Stall {
        /// Bytes that are sent.
        after: u64,
    },
    /// Sends the body in small pieces with waits between them.
    Drip {
        /// Bytes of a piece.
        bytes: usize,
        /// The wait after each.
        every: Duration,
    },
    /// Inverts one byte of the body.
    Flip {
        /// Its place in this answer's body.
        at: u64,
    },
    /// Announces more bytes than it sends (above zero) or fewer (below), and closes the connection then. For answers
    /// of the upstream that give their length.
    WrongLength {
        /// What is added to the length.
        by: i64,
    },
    /// Announces no length: sends chunks.
    NoLength,
    /// Ends the body after so many bytes, and announces only those: a document that is cut, in a sound answer.
    Truncate {
        /// Bytes that are sent.
        after: u64,
    },
    /// Answers without asking the upstream.
    Answer {
        /// The status.
        status: u16,
        /// Header fields beside the length.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Answers with a redirect to the same path and query elsewhere.
    Redirect {
        /// 302, 307 …
        status: u16,
        /// Scheme, host and port, such as [`super::FaultProxy::url`].
        to: String,
    },
    /// Answers 200 with a body that is made up as it is sent: an opening brace and spaces.
    Flood {
        /// Its type.
        media_type: String,
        /// Its announced length; without one the body has no end.
        length: Option<u64>,
    },
    /// Sends all bytes though only some were asked for.
    IgnoreRange,
    /// Answers 206 with this `Content-Range`.
    WrongRange(String),
    /// Gives a header field of the answer another value, or leaves it out.
    Header {
        /// Its name.
        name: String,
        /// The value.
        value: Option<String>,
    },
    /// Waits before the request goes on.
    Delay(Duration),
    /// Closes the connection in the place of an answer, and asks the upstream nothing.
    HangUp,
    /// Lets the upstream do what was asked, then closes the connection in the place of an answer.
    LoseAnswer,
    /// Passes so many bytes of the request's body on, then closes the connection. The upstream has seen the end of its
    /// own connection by then.
    CutUpload {
        /// Bytes that are passed on.
        after: u64,
    },
}

impl Fault {
    /// Answers with this status.
    pub fn status(status: u16) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"FAULT","message":"status {status}"}}]}}"#);
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Self::Answer { status, headers, body: body.into_bytes() }
    }

    /// Answers with this status and one header field, such as 429 and `Retry-After` or 401 and `WWW-Authenticate`.
    pub fn status_with(status: u16, name: &str, value: &str) -> Self {
        let mut fault = Self::status(status);
        if let Self::Answer { headers, .. } = &mut fault {
            headers.push((name.to_owned(), value.to_owned()));
        }
        fault
    }
}

/// A fault and how often its requests came.
#[derive(Debug)]
pub(super) struct Rule {
    requests: Match,
    fault: Fault,
    seen: u32,
}

impl Rule {
    pub(super) fn new(requests: Match, fault: Fault) -> Self {
        Self { requests, fault, seen: 0 }
    }

    /// Counts a request and says whether it is to break.
    fn takes(&mut self, method: &str, target: &str) -> bool {
        let Match { method: wanted, part, skip, times } = &self.requests;
        if !(wanted.is_empty() || wanted == method) || !target.contains(part) {
            return false;
        }
        self.seen += 1;
        self.seen > *skip && times.is_none_or(|times| self.seen - skip <= times)
    }
}

/// The fault of the first rule that takes the request.
pub(super) fn pick(rules: &mut [Rule], method: &str, target: &str) -> Option<Fault> {
    let mut fault = None;
    for rule in rules {
        if rule.takes(method, target) && fault.is_none() {
            fault = Some(rule.fault.clone());
        }
    }
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(requests: Match, asked: &[(&str, &str)]) -> Vec<bool> {
        let mut rules = [Rule::new(requests, Fault::HangUp)];
        asked.iter().map(|(method, target)| pick(&mut rules, method, target).is_some()).collect()
    }

    #[test]
    fn a_rule_takes_the_requests_that_it_describes() {
        let asked = [("GET", "/a"), ("PUT", "/a"), ("GET", "/b"), ("GET", "/a?x"), ("GET", "/a")];
        assert_eq!(broken(Match::any(), &asked), [true; 5]);
        assert_eq!(broken(Match::get("/a"), &asked), [true, false, false, true, true]);
        assert_eq!(broken(Match::get("/a").first(2), &asked), [true, false, false, true, false]);
        assert_eq!(broken(Match::get("/a").nth(2), &asked), [false, false, false, true, false]);
        assert_eq!(broken(Match::get("/a").since(2), &asked), [false, false, false, true, true]);
    }

    #[test]
    fn a_request_gets_the_fault_of_the_first_rule_and_counts_for_all() {
        let mut rules = [
            Rule::new(Match::any().first(1), Fault::HangUp),
            Rule::new(Match::any().first(2), Fault::LoseAnswer),
        ];
        assert!(matches!(pick(&mut rules, "GET", "/"), Some(Fault::HangUp)));
        assert!(matches!(pick(&mut rules, "GET", "/"), Some(Fault::LoseAnswer)));
        assert!(pick(&mut rules, "GET", "/").is_none());
    }
}
