//! Points in time and spans as Docker prints them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A span as go-units' `HumanDuration` puts it: `About a minute`, `3 weeks`.
pub(crate) fn human_duration(seconds: u64) -> String {
    let minutes = seconds / 60;
    // Hours are rounded to the nearest, all larger units are cut.
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        _ if seconds < 60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long before `now` a moment was (`3 weeks ago`); both in seconds since 1970.
pub(crate) fn ago(then: i64, now: i64) -> String {
    let seconds = u64::try_from(now.saturating_sub(then)).unwrap_or(0);
    format!("{} ago", human_duration(seconds))
}

/// A moment as Go's `time.Time.String` prints it in local time: `2024-01-01 00:00:00 +0000 UTC`.
pub(crate) fn created_at(seconds: i64) -> String {
    created_at_in(seconds, TimeZone::system())
}

fn created_at_in(seconds: i64, zone: TimeZone) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string(),
        Err(_) => String::new(),
    }
}

/// A moment to the minute in local time, as `ls -l --time-style=long-iso` has it.
pub(crate) fn minute(seconds: i64) -> String {
    minute_in(seconds, TimeZone::system())
}

fn minute_in(seconds: i64, zone: TimeZone) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(zone).strftime("%Y-%m-%d %H:%M").to_string(),
        // Archives may hold times beyond the year 9999.
        Err(_) => seconds.to_string(),
    }
}

/// A moment as RFC 3339 in local time, `Z` for UTC: what `docker history --human=false` prints.
pub(crate) fn rfc3339(seconds: i64) -> String {
    rfc3339_in(seconds, TimeZone::system())
}

fn rfc3339_in(seconds: i64, zone: TimeZone) -> String {
    let Ok(time) = Timestamp::from_second(seconds) else { return String::new() };
    let time = time.to_zoned(zone);
    let date = time.strftime("%Y-%m-%dT%H:%M:%S");
    if time.offset().is_zero() { format!("{date}Z") } else { format!("{date}{}", time.strftime("%:z")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of go-units, checked against `docker images` 28.2.2.
    #[test]
    fn spans_print_as_in_docker() {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (31, "31 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (HOUR, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (20 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (100 * DAY, "3 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
            (3000 * DAY, "8 years"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human_duration(seconds), expected, "{seconds} s");
        }
        assert_eq!(ago(100, 160), "About a minute ago");
        assert_eq!(ago(160, 100), "Less than a second ago");
        assert_eq!(ago(i64::MIN, i64::MAX), format!("{} years ago", i64::MAX / 3600 / 24 / 365));
    }

    #[test]
    fn moments_print_as_in_docker() {
        assert_eq!(created_at_in(1_704_067_200, TimeZone::UTC), "2024-01-01 00:00:00 +0000 UTC");
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(created_at_in(1_704_067_200, berlin.clone()), "2024-01-01 01:00:00 +0100 CET");
        assert_eq!(rfc3339_in(1_704_067_200, TimeZone::UTC), "2024-01-01T00:00:00Z");
        assert_eq!(rfc3339_in(1_704_067_200, berlin), "2024-01-01T01:00:00+01:00");
        assert_eq!(created_at_in(i64::MAX, TimeZone::UTC), "");
        assert_eq!(minute_in(1_704_067_260, TimeZone::UTC), "2024-01-01 00:01");
        assert_eq!(minute_in(i64::MAX, TimeZone::UTC), "9223372036854775807");
    }
}
