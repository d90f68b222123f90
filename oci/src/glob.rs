//! Patterns for names, as Go's `path.Match` has them in Docker's filters.

use crate::Reference;

/// A pattern for names of images. It fits the familiar name, with or without its tag or digest, and the full one
/// (`docker.io/library/nginx`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamePattern(String);

impl NamePattern {
    /// A pattern. One that is not well formed fits nothing.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// A pattern that can fit a name. Error: why no name can fit it, in words about `PATTERN`.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        match wrong(pattern) {
            None => Ok(Self::new(pattern)),
            Some(problem) => Err(format!("no name fits `{}`: {problem}", pattern.escape_debug())),
        }
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it fits.
    pub fn fits(&self, name: &Reference) -> bool {
        matches(&self.0, &name.familiar())
            || matches(&self.0, name.familiar_repository())
            || matches(&self.0, &name.to_string())
            || matches(&self.0, name.repository())
    }
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether all of `text` fits `pattern`: `*` stands for any characters but `/`, `?` for one of them,
/// `[a-z]` and `[^a-z]` for one of a set, `\` takes the next character as it is. A pattern that is not
/// well formed fits nothing.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Behind the last star, and where its match is to be one longer on the next try.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        let next = text.get(t).and_then(|c| one(&pattern[p..], *c));
        if let Some(len) = next {
            (p, t) = (p + len, t + 1);
            continue;
        }
        match retry {
            Some((star, from)) if text.get(from).is_some_and(|c| *c != '/') => {
                retry = Some((star, from + 1));
                (p, t) = (star, from + 1);
            }
            _ => return false,
        }
    }
}

/// Why a pattern fits no name at all.
fn wrong(pattern: &str) -> Option<String> {
    if pattern.is_empty() {
        return Some("it is empty".to_owned());
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let mut p = 0;
    while let Some(c) = pattern.get(p) {
        let (literal, len) = match c {
            '*' | '?' => (None, 1),
            '[' => match set_len(&pattern[p + 1..]) {
                Some(len) => (None, len + 1),
                None => return Some("a set of characters is not well formed: `[a-z]` is one".to_owned()),
            },
            '\\' => match pattern.get(p + 1) {
                Some(escaped) => (Some(*escaped), 2),
                None => return Some("nothing follows the `\\` at its end".to_owned()),
            },
            plain => (Some(*plain), 1),
        };
        if let Some(c) = literal.filter(|c| !c.is_ascii_alphanumeric() && !"._-/:@+[]".contains(*c)) {
            return Some(format!("no name has a `{}`", c.escape_debug()));
        }
        p += len;
    }
    None
}

/// The length of a set behind its `[`, if it is well formed.
fn set_len(pattern: &[char]) -> Option<usize> {
    let mut i = usize::from(pattern.first() == Some(&'^'));
    let mut empty = true;
    while pattern.get(i) != Some(&']') || empty {
        character(pattern, &mut i)?;
        if pattern.get(i) == Some(&'-') {
            i += 1;
            character(pattern, &mut i)?;
        }
        empty = false;
    }
    Some(i + 1)
}

/// The length of the first element of `pattern` if it fits `c`. It is not a star.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => (c != '/').then_some(1),
        ['\\', escaped, ..] => (*escaped == c).then_some(2),
        ['[', rest @ ..] => set(rest, c).map(|len| len + 1),
        [plain, ..] => (*plain == c && c != '\\').then_some(1),
        [] => None,
    }
}

/// The length of a set behind its `[` if it has `c`.
fn set(pattern: &[char], c: char) -> Option<usize> {
    let negated = pattern.first() == Some(&'^');
    let mut i = usize::from(negated);
    let mut found = false;
    let mut empty = true;
    while pattern.get(i) != Some(&']') || empty {
        let low = character(pattern, &mut i)?;
        let high = if pattern.get(i) == Some(&'-') {
            i += 1;
            character(pattern, &mut i)?
        } else {
            low
        };
        found |= (low..=high).contains(&c);
        empty = false;
    }
    (found != negated).then_some(i + 1)
}

/// One end of a range in a set.
fn character(pattern: &[char], i: &mut usize) -> Option<char> {
    let escaped = pattern.get(*i) == Some(&'\\');
    *i += usize::from(escaped);
    let c = *pattern.get(*i)?;
    *i += 1;
    (escaped || (c != '-' && c != ']')).then_some(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of Go's `path.Match`, with the results that it gives.
    #[test]
    fn patterns_match_as_in_go() {
        let cases = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("[]a]", "]", false),
            ("[-]", "-", false),
            ("[x-]", "x", false),
            ("[a-b-c]", "a", false),
            ("[", "a", false),
            ("[^", "a", false),
            ("[^bc", "a", false),
            ("a[", "a", false),
            ("a[", "ab", false),
            ("*x", "xxx", true),
            ("\\", "\\", false),
            ("", "", true),
            ("", "a", false),
            ("localhost/*:1", "localhost/app:1", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_no_name_can_fit_is_no_pattern() {
        for (wrong, why) in [
            ("", "it is empty"),
            ("t/[a", "a set of characters is not well formed: `[a-z]` is one"),
            ("[]a]", "a set of characters is not well formed: `[a-z]` is one"),
            ("[x-]", "a set of characters is not well formed: `[a-z]` is one"),
            ("a name", "no name has a ` `"),
            ("ung\u{fc}ltig", "no name has a `\u{fc}`"),
            ("a\u{1b}", "no name has a `\\u{1b}`"),
            ("a\\*b", "no name has a `*`"),
            ("a\\", "nothing follows the `\\` at its end"),
        ] {
            let error = NamePattern::parse(wrong).unwrap_err();
            assert!(error.ends_with(&format!(": {why}")), "{wrong}: {error}");
        }
        for right in [
            "*",
            "a?",
            "localhost:5000/a_b/*:[^a-c]*",
            "[\\]a]",
            "\\[::1\\]:5000/a",
            "a/b@sha256:*",
            "a[^\u{fc}]",
        ] {
            assert_eq!(NamePattern::parse(right).unwrap().as_str(), right);
        }
    }

    #[test]
    fn many_stars_cost_little() {
        assert!(!matches(&"a*".repeat(2000), &format!("{}b", "a".repeat(1999))));
        assert!(!matches(&format!("{}c", "a*".repeat(500)), &"a".repeat(5000)));
    }
}
