//! Words of instructions: where they end, and what their quotes and variables stand for.
//!
//! As Docker's builder does both, without the patterns of `${name#…}` and `${name/…}`.

use std::iter::Peekable;
use std::str::Chars;

/// How deep `${a:-${b:-…}}` may go.
const MAX_DEPTH: usize = 8;

/// A word in which variables are still to be put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable { name: String, instead: Option<Instead> },
}

/// `${name:-word}` and the like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Instead {
    /// `+`: the word replaces a variable that is set, not one that is not.
    if_set: bool,
    /// `:`: an empty variable counts as not set.
    empty_is_unset: bool,
    word: Word,
}

impl Word {
    /// Takes the quotes off.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lexer = Lexer { rest: text.chars().peekable() };
        lexer.word(false, 0)
    }

    /// The word, if it has no variables.
    pub(super) fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The word with its variables put in; nothing if it has more than `limit` bytes then.
    pub(super) fn expand<'e>(
        &self,
        variable: &impl Fn(&str) -> Option<&'e str>,
        limit: usize,
    ) -> Option<String> {
        let mut out = String::new();
        self.expand_into(variable, limit, &mut out)?;
        Some(out)
    }

    fn expand_into<'e>(
        &self,
        variable: &impl Fn(&str) -> Option<&'e str>,
        limit: usize,
        out: &mut String,
    ) -> Option<()> {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable { name, instead } => {
                    let value = variable(name);
                    match instead {
                        None => out.push_str(value.unwrap_or_default()),
                        Some(Instead { if_set, empty_is_unset, word }) => {
                            let set = value.filter(|value| !(*empty_is_unset && value.is_empty()));
                            match (set, if_set) {
                                (Some(_), true) | (None, false) => word.expand_into(variable, limit, out)?,
                                (Some(value), false) => out.push_str(value),
                                (None, true) => {}
                            }
                        }
                    }
                }
            }
            if out.len() > limit {
                return None;
            }
        }
        Some(())
    }
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Lexer<'_> {
    /// A word up to the end, or up to the brace that closes a variable.
    fn word(&mut self, in_braces: bool, depth: usize) -> Result<Word, &'static str> {
        let mut parts = Vec::new();
        let mut text = String::new();
        loop {
            match self.rest.next() {
                Some('}') if in_braces => break,
                None if in_braces => return Err("a `${` without its `}`"),
                None => break,
                Some('\'') => loop {
                    match self.rest.next() {
                        Some('\'') => break,
                        Some(other) => text.push(other),
                        None => return Err("a single quote that is not closed"),
                    }
                },
                Some('"') => self.double_quoted(&mut parts, &mut text, depth)?,
                Some('$') => self.variable(&mut parts, &mut text, depth)?,
                // At the very end it means nothing.
                Some('\\') => text.extend(self.rest.next()),
                Some(other) => text.push(other),
            }
        }
        flush(&mut parts, &mut text);
        Ok(Word(parts))
    }

    fn double_quoted(
        &mut self,
        parts: &mut Vec<Part>,
        text: &mut String,
        depth: usize,
    ) -> Result<(), &'static str> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable(parts, text, depth)?,
                Some('\\') => match self.rest.peek() {
                    Some('"' | '$' | '\\') => text.extend(self.rest.next()),
                    _ => text.push('\\'),
                },
                Some(other) => text.push(other),
                None => return Err("a double quote that is not closed"),
            }
        }
    }

    /// What follows a dollar sign.
    fn variable(
        &mut self,
        parts: &mut Vec<Part>,
        text: &mut String,
        depth: usize,
    ) -> Result<(), &'static str> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                text.push('$');
                return Ok(());
            }
            flush(parts, text);
            parts.push(Part::Variable { name, instead: None });
            return Ok(());
        }
        let name = self.name();
        if name.is_empty() {
            return Err("a `${` without the name of a variable");
        }
        let empty_is_unset = self.rest.next_if_eq(&':').is_some();
        let instead = match self.rest.next() {
            Some('}') if !empty_is_unset => None,
            Some(sign @ ('-' | '+')) => {
                if depth >= MAX_DEPTH {
                    return Err("variables inside variables, too deeply");
                }
                let word = self.word(true, depth + 1)?;
                Some(Instead { if_set: sign == '+', empty_is_unset, word })
            }
            None => return Err("a `${` without its `}`"),
            Some(_) => return Err("a `${…}` with something else than `:-`, `-`, `:+` or `+`"),
        };
        flush(parts, text);
        parts.push(Part::Variable { name, instead });
        Ok(())
    }

    /// `name`, a number, or one of the shell's special characters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some('@' | '*' | '#' | '?' | '-' | '!' | '$') => name.extend(self.rest.next()),
            Some(digit) if digit.is_ascii_digit() => {
                while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(digit);
                }
            }
            _ => {
                while let Some(letter) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(letter);
                }
            }
        }
        name
    }
}

fn flush(parts: &mut Vec<Part>, text: &mut String) {
    if !text.is_empty() {
        parts.push(Part::Text(std::mem::take(text)));
    }
}

/// Splits at white space outside of quotes. Quotes and backslashes stay where they are.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if quote.is_none() && character.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        word.push(character);
        match character {
            // A backslash means nothing between single quotes.
            '\\' if quote != Some('\'') => word.extend(rest.next()),
            '\'' | '"' if quote.is_none() => quote = Some(character),
            _ if quote == Some(character) => quote = None,
            _ => {}
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, &'static str> {
        let variable = |name: &str| match name {
            "A" => Some("one"),
            "EMPTY" => Some(""),
            _ => None,
        };
        Word::parse(text).map(|word| word.expand(&variable, 1000).unwrap())
    }

    #[test]
    fn quotes_and_backslashes_go() {
        for (text, word) in [
            ("plain", "plain"),
            (r#"a"b c"d"#, "ab cd"),
            (r#"'$A "x"'"#, r#"$A "x""#),
            (r#""\$A \"q\" \\ \n""#, r#"$A "q" \ \n"#),
            (r"a\ b\$A\", "a b$A"),
            (r#""""#, ""),
        ] {
            assert_eq!(expand(text).unwrap(), word, "{text}");
        }
    }

    #[test]
    fn variables_are_put_in() {
        for (text, word) in [
            ("$A", "one"),
            ("/x:$A/y${A}z", "/x:one/yonez"),
            (r#""$A""#, "one"),
            ("$NONE.", "."),
            ("$", "$"),
            ("a$ b", "a$ b"),
            ("$1x", "x"),
            ("${NONE:-d$A}", "done"),
            ("${EMPTY:-d}${EMPTY-d}", "d"),
            ("${A:+set}${NONE+set}", "set"),
            ("${NONE:-${EMPTY:-'}'}}", "}"),
        ] {
            assert_eq!(expand(text).unwrap(), word, "{text}");
        }
    }

    #[test]
    fn what_is_not_closed_is_refused() {
        for text in ["'a", "\"a", "${A", "${A:-", "${}", "${A:}", "${A%x}", "${A:?x}", "${"] {
            assert!(expand(text).is_err(), "{text}");
        }
        let deep = "${N:-".repeat(50) + &"}".repeat(50);
        assert!(expand(&deep).is_err());
    }

    #[test]
    fn a_word_does_not_grow_without_limit() {
        let word = Word::parse(&"$A".repeat(100)).unwrap();
        assert_eq!(word.expand(&|_| Some("0123456789"), 999), None);
    }

    #[test]
    fn words_end_at_white_space_outside_of_quotes() {
        assert_eq!(split(r#"  A=b C="d e"  F='g "h' i\ j "#), ["A=b", r#"C="d e""#, r#"F='g "h'"#, r"i\ j"]);
        assert_eq!(split(""), Vec::<String>::new());
        assert_eq!(split("a\\"), ["a\\"]);
    }
}
