//! `--filter KEY=VALUE` of the verbs that delete.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use layerstore::LabelFilter;

use super::filter::{dangling, key_value, label, moment};
use super::quantity::span;

/// A condition on what is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PruneFilter {
    /// Built or created before this moment, in seconds since 1970.
    Until(i64),
    /// With this label, or without it.
    Label(LabelFilter),
    /// A pattern for the familiar name, with or without its tag.
    Reference(String),
    /// Whether only images without a name are meant, or all.
    Dangling(bool),
}

const KEYS: &str = "until, label, label!, reference, dangling";

pub(crate) fn parse_prune(text: &str) -> Result<PruneFilter, String> {
    let (key, value) = key_value(text)?;
    Ok(match key {
        "until" => PruneFilter::Until(until(value)?),
        "label" | "label!" => {
            let (label, value) = label(value);
            PruneFilter::Label(LabelFilter { key: label, value, negated: key == "label!" })
        }
        "reference" => PruneFilter::Reference(value.to_owned()),
        "dangling" => PruneFilter::Dangling(dangling(value)?),
        _ => return Err(format!("there is no filter `{key}` (there are: {KEYS})")),
    })
}

/// A moment as Docker takes it, or an age in days or weeks.
fn until(text: &str) -> Result<i64, String> {
    let now = Timestamp::now();
    match span(text) {
        Ok(age) => Ok(now.as_second().saturating_sub(age)),
        Err(_) => moment(text, now, &TimeZone::system()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let label = |key: &str, value: Option<&str>, negated| {
            let value = value.map(str::to_owned);
            PruneFilter::Label(LabelFilter { key: key.to_owned(), value, negated })
        };
        let cases = [
            ("until=1700000000", PruneFilter::Until(1_700_000_000)),
            ("until=2024-01-01T00:00:00Z", PruneFilter::Until(1_704_067_200)),
            ("label=a", label("a", None, false)),
            ("label=a=b=c", label("a", Some("b=c"), false)),
            ("label!=a", label("a", None, true)),
            ("label!=a=b", label("a", Some("b"), true)),
            ("reference=localhost/*", PruneFilter::Reference("localhost/*".to_owned())),
            ("dangling=true", PruneFilter::Dangling(true)),
            ("dangling=0", PruneFilter::Dangling(false)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_prune(text), Ok(expected), "{text}");
        }
        let now = Timestamp::now().as_second();
        for (text, age) in [("until=30d", 2_592_000), ("until=720h", 2_592_000), ("until=1h30m", 5400)] {
            let Ok(PruneFilter::Until(moment)) = parse_prune(text) else { panic!("{text}") };
            assert!((moment + age - now).abs() < 60, "{text}");
        }
    }

    #[test]
    fn wrong_filters_say_why() {
        let cases = [
            ("dangling", "expected KEY=VALUE"),
            ("label=", "`label=` has no value"),
            ("dangling=maybe", "dangling is `true` or `false`"),
            ("size=1", "there is no filter `size` (there are: until, label, label!, reference, dangling)"),
            ("until=soon", "`soon` is not a moment: expected an age (24h), a date (2024-01-31) or a time"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_prune(text).unwrap_err(), expected);
        }
    }
}
