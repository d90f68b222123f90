//! Filters of snapshots, in the language of containerd's `filters` package.
//!
//! `name`, `parent`, `kind` and `labels.NAME` are compared with `==`, `!=` or `~=` (a regular expression that matches
//! somewhere), or stand alone and ask whether there is one; selectors with a comma between must all fit. Names of labels
//! and values may be quoted as in Go; those with a dot or a slash have to be.

use layerstore_store::SnapshotInfo;
use regex::bytes::{Regex, RegexBuilder};

/// A filter that was read.
#[derive(Debug, Clone)]
pub struct Filter(Vec<Selector>);

/// A filter that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{filter}` is not a filter: {reason}")]
pub struct FilterError {
    /// As given.
    pub filter: String,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Debug, Clone)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

/// A pattern may not need more memory than this when it is compiled, in bytes.
const MAX_PATTERN: usize = 1 << 20;

impl Filter {
    /// Whether a snapshot fits.
    pub fn matches(&self, info: &SnapshotInfo) -> bool {
        self.0.iter().all(|selector| {
            let value = value(info, &selector.path);
            match &selector.test {
                Test::Present => value.is_some(),
                Test::Equal(wanted) => value.is_some_and(|value| value == wanted),
                // As in containerd, what is absent is not equal to anything.
                Test::NotEqual(wanted) => value.is_none_or(|value| value != wanted),
                Test::Matches(pattern) => value.is_some_and(|value| pattern.is_match(value.as_bytes())),
            }
        })
    }
}

/// The field's value, if there is one.
fn value<'a>(info: &'a SnapshotInfo, path: &[String]) -> Option<&'a str> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["name" | "key"] => Some(&info.key),
        ["parent"] => info.parent.as_deref(),
        ["kind"] => Some(info.kind.as_str()),
        ["labels", label @ ..] if !label.is_empty() => info.labels.get(&label.join(".")).map(String::as_str),
        _ => None,
    }
}

impl std::str::FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut reader = Reader { rest: text };
        let failed = |reason| FilterError { filter: text.to_owned(), reason };
        let mut selectors = Vec::new();
        if text.is_empty() {
            return Ok(Self(selectors));
        }
        loop {
            selectors.push(reader.selector().map_err(failed)?);
            if reader.rest.is_empty() {
                return Ok(Self(selectors));
            }
            reader.expect(',').map_err(failed)?;
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(format!("there should be `{wanted}` before `{}`", self.rest)),
        }
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let mut path = vec![self.field()?];
        while self.rest.starts_with('.') {
            self.expect('.')?;
            path.push(self.field()?);
        }
        let known = matches!(path[0].as_str(), "name" | "key" | "parent" | "kind") && path.len() == 1
            || path[0] == "labels" && path.len() > 1;
        if !known {
            return Err(format!("there is no field `{}`", path.join(".")));
        }
        let test = if let Some(rest) = self.rest.strip_prefix("==") {
            self.rest = rest;
            Test::Equal(self.value()?)
        } else if let Some(rest) = self.rest.strip_prefix("!=") {
            self.rest = rest;
            Test::NotEqual(self.value()?)
        } else if let Some(rest) = self.rest.strip_prefix("~=") {
            self.rest = rest;
            let pattern = self.value()?;
            let compiled = RegexBuilder::new(&pattern).unicode(false).size_limit(MAX_PATTERN).build();
            Test::Matches(compiled.map_err(|error| format!("`{pattern}` is not a pattern: {error}"))?)
        } else {
            Test::Present
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String, String> {
        if self.rest.starts_with(['"', '/', '|']) {
            return self.quoted();
        }
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        self.take(end, "a field")
    }

    fn value(&mut self) -> Result<String, String> {
        if self.rest.starts_with(['"', '/', '|']) {
            return self.quoted();
        }
        let end = self.rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(self.rest.len());
        self.take(end, "a value")
    }

    fn take(&mut self, end: usize, what: &str) -> Result<String, String> {
        if end == 0 {
            return Err(format!("{what} is missing before `{}`", self.rest));
        }
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(taken.to_owned())
    }

    /// A text between double quotes with Go's escapes, or between slashes or bars, where only these are escaped.
    fn quoted(&mut self) -> Result<String, String> {
        let mut characters = self.rest.char_indices();
        let quote = characters.next().map_or('"', |(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, c)) = characters.next() {
            if c == quote {
                self.rest = self.rest.get(at + c.len_utf8()..).unwrap_or_default();
                return Ok(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some((_, escaped)) = characters.next() else { break };
            match escaped {
                c if c == quote => text.push(c),
                c if quote != '"' => text.extend(['\\', c]),
                '\\' => text.push('\\'),
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'x' => {
                    let digits: String = characters.by_ref().take(2).map(|(_, digit)| digit).collect();
                    let byte = u8::from_str_radix(&digits, 16).ok().filter(u8::is_ascii);
                    text.push(byte.map(char::from).ok_or_else(|| format!("`\\x{digits}` is no character"))?);
                }
                c => return Err(format!("`\\{c}` is no escape sequence")),
            }
        }
        Err("a quote is not closed".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use layerstore_store::{Labels, Settings, SnapshotKind};
    use proptest::prelude::*;

    use super::*;

    fn info() -> SnapshotInfo {
        let labels = [("containerd.io/snapshot.ref", "sha256:1"), ("tier", "web"), ("empty", "")];
        SnapshotInfo {
            owner: "k8s".to_owned(),
            key: "one".to_owned(),
            kind: SnapshotKind::Active,
            parent: None,
            labels: labels
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect::<Labels>(),
            settings: Settings::default(),
            created_at: 0,
            updated_at: 0,
        }
    }

    #[test]
    fn containerds_examples_are_understood() {
        for (filter, fits) in [
            ("", true),
            ("name==one", true),
            ("name==two", false),
            ("name!=two,kind==active", true),
            ("name==one,kind==committed", false),
            ("parent", false),
            ("parent!=x", true),
            ("labels.tier", true),
            ("labels.empty", true),
            ("labels.none", false),
            ("labels.tier~=^w.b$", true),
            (r#"labels."containerd.io/snapshot.ref"==sha256:1"#, true),
            (r#"labels."containerd.io/snapshot.ref"=="sha256:2""#, false),
            ("name~=/^o/", true),
            ("name~=|^p|", false),
            (r#"name=="\x6fne""#, true),
        ] {
            assert_eq!(filter.parse::<Filter>().unwrap().matches(&info()), fits, "{filter}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (filter, reason) in [
            ("size==1", "no field `size`"),
            ("name=one", "`,` before `=one`"),
            ("name==", "a value is missing"),
            ("name==one,", "a field is missing"),
            ("name==\"one", "not closed"),
            ("name~=(", "not a pattern"),
            ("labels==x", "no field `labels`"),
        ] {
            let error = filter.parse::<Filter>().unwrap_err();
            assert!(error.to_string().contains(reason), "{filter}: {error}");
        }
        let bomb = format!("name~={}", "(a{1000}){1000}");
        assert!(bomb.parse::<Filter>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z.\"'/|\\\\=!~,x0-9é]{0,40}") {
            drop(text.parse::<Filter>());
        }

        #[test]
        fn a_quoted_value_is_taken_as_it_is(value in "[ -!#-\\[\\]-~]{0,20}") {
            let filter: Filter = format!("labels.tier==\"{value}\"").parse().unwrap();
            let mut info = info();
            info.labels.insert("tier".to_owned(), value);
            prop_assert!(filter.matches(&info));
        }
    }
}
