//! How often and after what time something is tried again.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// When to try again, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often one thing is tried in all, before the next host gets its turn or it has failed. Docker tries a
    /// download five times.
    pub attempts: u32,
    /// The time before the second attempt; it doubles with each further one.
    pub first_wait: Duration,
    /// The longest time between two attempts, also where a server asks for a longer one.
    pub longest_wait: Duration,
    /// A download that for this long gets less than [`Retry::least_rate`] has stalled.
    pub stall: Duration,
    /// Bytes a second.
    pub least_rate: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_mins(1),
            stall: Duration::from_secs(30),
            least_rate: 1024,
        }
    }
}

impl Retry {
    /// The wait after `failures` failed attempts: somewhere between half and all of what the doubling gives, so that
    /// a thousand clients do not come back in the same moment.
    pub(crate) fn wait(&self, failures: u32) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest_wait).mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// Whether a later attempt may get another answer.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        // "Not implemented" and "version not supported" stay so.
        || status.is_server_error() && !matches!(status.as_u16(), 501 | 505)
}

/// How long a server asks to wait (RFC 9110, 10.2.3): seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_up_to_the_longest() {
        let retry = Retry { first_wait: Duration::from_secs(1), ..Retry::default() };
        for (failures, most) in [(1, 1), (2, 2), (3, 4), (7, 60), (1000, 60)] {
            let (wait, most) = (retry.wait(failures), Duration::from_secs(most));
            assert!(wait >= most / 2 && wait <= most, "{failures}: {wait:?}");
        }
    }

    #[test]
    fn what_a_server_asks_for_is_read_in_both_forms() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!(asked(&date).unwrap() > Duration::from_secs(90));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
