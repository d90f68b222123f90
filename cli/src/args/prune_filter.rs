//! `--filter KEY=VALUE` of the verbs that delete.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use layerstore::LabelFilter;
use layerstore::oci::NamePattern;

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
    Reference(NamePattern),
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
        "reference" => PruneFilter::Reference(NamePattern::parse(value)?),
        "dangling" => PruneFilter::Dangling(dangling(value)?),
        _ => return Err(format!("there is no filter `{key}` (there are: {KEYS})")),
    })
}

/// A pattern for names that stay.
pub(crate) fn protect(text: &str) -> Result<NamePattern, String> {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = (12..=64).contains(&text.len()) && hex(text) && text.bytes().any(|byte| byte.is_ascii_digit());
    if id || text.starts_with("sha256:") || text.starts_with("sha512:") {
        return Err(format!(
            "`{text}` is a digest or an ID, not a pattern for names: `pin` keeps a single image"
        ));
    }
    NamePattern::parse(text)
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
            ("reference=localhost/*", PruneFilter::Reference(NamePattern::new("localhost/*"))),
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
    fn digests_protect_no_name() {
        let hex = "0123456789abcdef".repeat(4);
        for wrong in [&hex[..], &hex[..12], &format!("sha256:{hex}"), "sha256:01234", "sha256:0*"] {
            assert!(protect(wrong).unwrap_err().contains("`pin`"), "{wrong}");
        }
        for wrong in ["", "t/[a", "a b", "a\\"] {
            assert!(protect(wrong).is_err(), "{wrong}");
        }
        for right in ["app", "cafe", "feedfacecafe", &format!("a@sha256:{hex}")] {
            assert!(protect(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn wrong_filters_say_why() {
        let cases = [
            ("dangling", "expected KEY=VALUE"),
            ("label=", "`label=` has no value"),
            ("dangling=maybe", "dangling is `true` or `false`"),
            ("reference=t/[a", "no name fits `t/[a`: a set of characters is not well formed: `[a-z]` is one"),
            ("size=1", "there is no filter `size` (there are: until, label, label!, reference, dangling)"),
            ("until=soon", "`soon` is not a moment: expected an age (24h), a date (2024-01-31) or a time"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_prune(text).unwrap_err(), expected);
        }
    }
}
