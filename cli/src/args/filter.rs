//! `--filter KEY=VALUE` of the verbs that list images and containers.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use layerstore::oci::NamePattern;

/// A condition on an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    /// A pattern for the familiar name, with or without its tag.
    Reference(NamePattern),
    /// Whether the image has no name.
    Dangling(bool),
    /// A label, and its value if given.
    Label(String, Option<String>),
    /// Created before this image.
    Before(String),
    /// Created after this image.
    Since(String),
    /// Created before this moment, in seconds since 1970.
    Until(i64),
}

const KEYS: &str = "reference, dangling, label, before, since, until";

pub(crate) fn parse(text: &str) -> Result<Filter, String> {
    let (key, value) = key_value(text)?;
    Ok(match key {
        "reference" => Filter::Reference(NamePattern::parse(value)?),
        "dangling" => Filter::Dangling(dangling(value)?),
        "label" => {
            let (label, value) = label(value);
            Filter::Label(label, value)
        }
        "before" => Filter::Before(value.to_owned()),
        "since" => Filter::Since(value.to_owned()),
        "until" => Filter::Until(moment(value, Timestamp::now(), &TimeZone::system())?),
        _ => return Err(format!("there is no filter `{key}` (there are: {KEYS})")),
    })
}

/// The two sides of a filter.
pub(super) fn key_value(text: &str) -> Result<(&str, &str), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if value.is_empty() { Err(format!("`{key}=` has no value")) } else { Ok((key, value)) }
}

pub(super) fn dangling(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("dangling is `true` or `false`".to_owned()),
    }
}

/// A label, and its value if given.
pub(super) fn label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((label, value)) => (label.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// A condition on a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContainerFilter {
    /// How its ID begins.
    Id(String),
    /// Part of its name.
    Name(String),
    /// The image it was made from.
    Ancestor(String),
    /// Whether it is mounted.
    Mounted(bool),
    /// A label, and its value if given.
    Label(String, Option<String>),
}

const CONTAINER_KEYS: &str = "id, name, ancestor, status, label";

pub(crate) fn parse_container(text: &str) -> Result<ContainerFilter, String> {
    let (key, value) = key_value(text)?;
    Ok(match key {
        "id" => ContainerFilter::Id(value.to_owned()),
        "name" => ContainerFilter::Name(value.to_owned()),
        "ancestor" => ContainerFilter::Ancestor(value.to_owned()),
        "status" => ContainerFilter::Mounted(match value {
            "mounted" => true,
            "created" => false,
            _ => return Err("status is `created` or `mounted`".to_owned()),
        }),
        "label" => {
            let (label, value) = label(value);
            ContainerFilter::Label(label, value)
        }
        _ => return Err(format!("there is no filter `{key}` (there are: {CONTAINER_KEYS})")),
    })
}

/// A moment as Docker takes it: an age (`1h30m`), seconds since 1970, a date with an optional time
/// (local unless it says otherwise).
pub(super) fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<i64, String> {
    let wrong = || format!("`{text}` is not a moment: expected an age (24h), a date (2024-01-31) or a time");
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds);
    }
    if let Ok(age) = text.parse::<SignedDuration>() {
        return now.checked_sub(age).map(Timestamp::as_second).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_second());
    }
    let local: DateTime = text.parse().map_err(|_| wrong())?;
    local.to_zoned(zone.clone()).map(|time| time.timestamp().as_second()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let cases = [
            ("reference=localhost/*:1", Filter::Reference(NamePattern::new("localhost/*:1"))),
            ("dangling=true", Filter::Dangling(true)),
            ("dangling=0", Filter::Dangling(false)),
            ("label=a.b", Filter::Label("a.b".into(), None)),
            ("label=a=b=c", Filter::Label("a".into(), Some("b=c".into()))),
            ("before=app:1", Filter::Before("app:1".into())),
            ("since=app:1", Filter::Since("app:1".into())),
            ("until=1704067200", Filter::Until(1_704_067_200)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn wrong_filters_say_why() {
        let cases = [
            ("dangling", "expected KEY=VALUE"),
            ("label=", "`label=` has no value"),
            ("dangling=maybe", "dangling is `true` or `false`"),
            (
                "size=1",
                "there is no filter `size` (there are: reference, dangling, label, before, since, until)",
            ),
            ("until=soon", "`soon` is not a moment: expected an age (24h), a date (2024-01-31) or a time"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn filters_of_containers_are_read() {
        let cases = [
            ("id=3f", ContainerFilter::Id("3f".into())),
            ("name=web", ContainerFilter::Name("web".into())),
            ("ancestor=app:1", ContainerFilter::Ancestor("app:1".into())),
            ("status=mounted", ContainerFilter::Mounted(true)),
            ("status=created", ContainerFilter::Mounted(false)),
            ("label=a=b=c", ContainerFilter::Label("a".into(), Some("b=c".into()))),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_container(text), Ok(expected), "{text}");
        }
        for text in ["name", "name=", "status=running", "size=1"] {
            assert!(parse_container(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_read_as_docker_does() {
        let now = Timestamp::from_second(1_704_067_200).unwrap();
        let east = TimeZone::posix("CET-1").unwrap();
        let cases = [
            ("24h", 1_704_067_200 - 86_400),
            ("1h30m", 1_704_067_200 - 5400),
            ("10s", 1_704_067_190),
            ("1700000000", 1_700_000_000),
            ("2024-01-01T00:00:00Z", 1_704_067_200),
            ("2024-01-01T01:00:00+01:00", 1_704_067_200),
            ("2024-01-01", 1_704_067_200 - 3600),
            ("2024-01-01T01:00", 1_704_067_200),
            ("2024-01-01T01:00:00", 1_704_067_200),
        ];
        for (text, expected) in cases {
            assert_eq!(moment(text, now, &east), Ok(expected), "{text}");
        }
        assert!(moment("999999999999h", now, &east).is_err());
    }
}
