//! Policies in TOML: `gc --policy FILE`.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::marker::PhantomData;
use std::path::Path;

use layerstore::oci::NamePattern;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::gc::{Conditions, keep_last as parse_keep_last};
use super::prune_filter::{PruneFilter, parse_prune, protect as parse_protect};
use super::quantity;
use crate::errors::{Exit, Failure};

/// No policy is larger.
const MAX_BYTES: u64 = 1 << 20;

/// What the file says.
pub(crate) fn read(path: &Path) -> Result<Conditions, Failure> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match file {
        Ok(length) if length as u64 > MAX_BYTES => {
            Err(Failure::usage(format!("the policy {shown} is larger than {MAX_BYTES} bytes")))
        }
        Ok(_) => parse(&text).map_err(|problem| Failure::usage(format!("the policy {shown}, {problem}"))),
        Err(error) => {
            let is_text = error.kind() != std::io::ErrorKind::InvalidData;
            let action = "read the policy";
            let failure =
                Failure::from(layerstore::Error::File { action, path: path.to_owned(), source: error });
            Err(if is_text { failure } else { Failure { exit: Exit::WrongUsage, ..failure } })
        }
    }
}

/// The error names the line and the key.
pub(crate) fn parse(text: &str) -> Result<Conditions, String> {
    toml::from_str(text).map_err(|error| {
        let message = error.message().trim_end().replace('\n', ": ");
        let Some(span) = error.span() else { return message };
        let before = text.get(..span.start).unwrap_or(text);
        let number = before.matches('\n').count() + 1;
        let key = key_at(text, number).map(|key| format!(", {key}")).unwrap_or_default();
        format!("line {number}{key}: {message}")
    })
}

/// The key whose value the line belongs to: a list may be longer than a line.
fn key_at(text: &str, number: usize) -> Option<&str> {
    let lines: Vec<&str> = text.lines().take(number).collect();
    let key = |line: &&str| {
        let (key, _) = line.split_once('=')?;
        let key = key.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (!key.is_empty() && key.chars().all(plain)).then_some(key.len())
    };
    let line = lines.iter().rev().find(|line| key(line).is_some())?;
    line.trim_start().get(..key(line)?)
}

/// A value that is written as an option of the command line is, or as a number.
struct Text<T>(fn(&str) -> Result<T, String>, PhantomData<T>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

fn value<'de, D, T>(from: D, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
{
    from.deserialize_any(Text(parse, PhantomData)).map(Some)
}

pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    value(from, quantity::size)
}

pub(super) fn span<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    value(from, quantity::span)
}

pub(super) fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    value(from, quantity::percent)
}

pub(super) fn keep_last<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    value(from, parse_keep_last)
}

pub(super) fn filters<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PruneFilter>, D::Error> {
    from.deserialize_seq(List { parse: parse_prune, example: "until=720h" })
}

pub(super) fn protect<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<NamePattern>, D::Error> {
    from.deserialize_seq(List { parse: parse_protect, example: "base/*" })
}

/// Values of an option that may be given several times.
struct List<T> {
    parse: fn(&str) -> Result<T, String>,
    example: &'static str,
}

impl<'de, T> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of texts such as \"{}\"", self.example)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(text) = items.next_element::<String>()? {
            values.push((self.parse)(&text).map_err(A::Error::custom)?);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_options() {
        let text = "all = true\nunused-for = \"30d\"\nkeep-last = 3\nprotect = [\"registry.example.com/base/*\"]\n\
                    filter = [\"until=1700000000\", \"label!=keep\"]\nhigh = \"85%\"\nlow = 70\nevict = \"trees\"\n";
        let found = parse(text).unwrap();
        assert!(found.all && !found.dangling && !found.interrupted);
        assert_eq!((found.unused_for, found.keep_last), (Some(2_592_000), Some(3)));
        assert_eq!((found.high, found.low), (Some(85), Some(70)));
        assert_eq!(found.protect, [NamePattern::new("registry.example.com/base/*")]);
        assert_eq!(found.filter.len(), 2);
        assert_eq!(parse("keep-storage = \"20GB\"\n").unwrap().keep_storage, Some(20_000_000_000));
        assert_eq!(parse("free = 4096").unwrap().free, Some(4096));
        assert_eq!(parse("# nothing\n"), Ok(Conditions::default()));
    }

    #[test]
    fn errors_name_the_line_and_the_key() {
        let cases = [
            ("all = true\nunused-for = \"soon\"\n", "line 2, unused-for: `soon` is not a span of time"),
            ("keep-lost = 3\n", "line 1, keep-lost: unknown field `keep-lost`"),
            ("all = 3\n", "line 1, all: invalid type"),
            ("filter = [\n  \"label=a\",\n  \"size=3\",\n]\n", "line 1, filter: there is no filter `size`"),
            ("filter = \"label=a\"\n", "line 1, filter: invalid type"),
            ("all = true\nprotect = [\"t/[a\"]\n", "line 2, protect: no name fits `t/[a`"),
            ("protect = \"a\"\n", "line 1, protect: invalid type"),
            ("filter = [\"reference=a b\"]\n", "line 1, filter: no name fits `a b`"),
            ("high = \"185%\"\n", "line 1, high: `185%` is not a percentage"),
            ("keep-last = -1\n", "line 1, keep-last: `-1` is not a number above 0"),
            ("evict = \"images\"\n", "line 1, evict: unknown variant `images`"),
            ("all = true\nall = true\n", "line 2, all: duplicate key"),
            ("all true\n", "line 1: "),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_example_is_a_policy() {
        let text = include_str!("../../../contrib/gc.toml");
        assert_eq!((parse(text).unwrap().high, parse(text).unwrap().low), (Some(85), Some(70)));
        // What is commented out is right as well.
        for line in text.lines().filter_map(|line| line.strip_prefix("#: ")) {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
