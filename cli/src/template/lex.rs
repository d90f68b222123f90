//! A template's text as tokens. White space inside an action is a token: it separates arguments.

use super::TemplateError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// What stands outside of actions, trimmed where `{{-` and `-}}` say so.
    Text(String),
    Left,
    Right,
    Space,
    Dot,
    /// `.Name`, without the dot.
    Field(String),
    /// `$` or `$name`, with the dollar sign.
    Variable(String),
    Word(String),
    Int(i64),
    Float(f64),
    Str(String),
    Pipe,
    Declare,
    Assign,
    Comma,
    LeftParen,
    RightParen,
}

impl Token {
    /// The token as an error message quotes it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text(_) => "text".to_owned(),
            Self::Left => "`{{`".to_owned(),
            Self::Right => "`}}`".to_owned(),
            Self::Space => "space".to_owned(),
            Self::Dot => "`.`".to_owned(),
            Self::Field(name) => format!("`.{name}`"),
            Self::Variable(name) | Self::Word(name) => format!("`{name}`"),
            Self::Int(n) => format!("`{n}`"),
            Self::Float(n) => format!("`{n}`"),
            Self::Str(text) => format!("{text:?}"),
            Self::Pipe => "`|`".to_owned(),
            Self::Declare => "`:=`".to_owned(),
            Self::Assign => "`=`".to_owned(),
            Self::Comma => "`,`".to_owned(),
            Self::LeftParen => "`(`".to_owned(),
            Self::RightParen => "`)`".to_owned(),
        }
    }
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

pub(super) fn lex(template: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = template;
    let mut trim_start = false;
    loop {
        let (text, action) = match rest.split_once("{{") {
            Some((text, action)) => (text, Some(action)),
            None => (rest, None),
        };
        let text = if trim_start { text.trim_start_matches(SPACE) } else { text };
        let trimmed = action.and_then(|a| a.strip_prefix('-')).filter(|a| a.starts_with(SPACE));
        let text = if trimmed.is_some() { text.trim_end_matches(SPACE) } else { text };
        if !text.is_empty() {
            tokens.push(Token::Text(text.to_owned()));
        }
        let Some(action) = trimmed.or(action) else { return Ok(tokens) };
        let comment = if trimmed.is_some() { action.trim_start_matches(SPACE) } else { action };
        (rest, trim_start) = match comment.strip_prefix("/*") {
            Some(comment) => skip_comment(comment)?,
            None => Action { rest: action, tokens: &mut tokens }.lex()?,
        };
    }
}

/// What follows a comment, and whether it is to be trimmed.
fn skip_comment(comment: &str) -> Result<(&str, bool), TemplateError> {
    let (_, after) = comment.split_once("*/").ok_or_else(|| TemplateError::new("unclosed comment"))?;
    right_delimiter(after).ok_or_else(|| TemplateError::new("comment ends before closing delimiter"))
}

/// What follows `}}` or ` -}}`, if the text starts with one, and whether it is to be trimmed.
fn right_delimiter(text: &str) -> Option<(&str, bool)> {
    if let Some(after) = text.strip_prefix("}}") {
        return Some((after, false));
    }
    let trimmed = text.trim_start_matches(SPACE);
    let after = trimmed.strip_prefix("-}}")?;
    (trimmed.len() < text.len()).then_some((after, true))
}

/// The inside of one action.
struct Action<'a, 't> {
    rest: &'a str,
    tokens: &'t mut Vec<Token>,
}

impl<'a> Action<'a, '_> {
    fn lex(mut self) -> Result<(&'a str, bool), TemplateError> {
        self.tokens.push(Token::Left);
        loop {
            if let Some(end) = right_delimiter(self.rest) {
                self.tokens.push(Token::Right);
                return Ok(end);
            }
            let token = self.next()?;
            self.tokens.push(token);
        }
    }

    fn next(&mut self) -> Result<Token, TemplateError> {
        let mut chars = self.rest.chars();
        let first = chars.next().ok_or_else(|| TemplateError::new("unclosed action"))?;
        let after = chars.as_str();
        let second = chars.next();
        let starts_number = first.is_ascii_digit()
            || (matches!(first, '+' | '-' | '.') && second.is_some_and(|c| c.is_ascii_digit()))
            || (matches!(first, '+' | '-') && second == Some('.'));
        match first {
            _ if starts_number => return self.number(),
            _ if SPACE.contains(&first) => {
                self.rest = self.rest.trim_start_matches(SPACE);
                return Ok(Token::Space);
            }
            '.' if second.is_some_and(is_word) => {
                self.rest = after;
                return self.word().map(Token::Field);
            }
            '$' => {
                self.rest = after;
                return self.word().map(|name| Token::Variable(format!("${name}")));
            }
            '"' | '\'' => return self.quoted(first),
            '`' => {
                let (text, after) = after
                    .split_once('`')
                    .ok_or_else(|| TemplateError::new("unterminated raw quoted string"))?;
                self.rest = after;
                return Ok(Token::Str(text.to_owned()));
            }
            ':' if second == Some('=') => {
                self.rest = &after[1..];
                return Ok(Token::Declare);
            }
            _ if is_word(first) => return self.word().map(Token::Word),
            _ => {}
        }
        self.rest = after;
        match first {
            '.' => Ok(Token::Dot),
            '|' => Ok(Token::Pipe),
            '=' => Ok(Token::Assign),
            ',' => Ok(Token::Comma),
            '(' => Ok(Token::LeftParen),
            ')' => Ok(Token::RightParen),
            other => Err(TemplateError::new(format!("unexpected character {other:?}"))),
        }
    }

    fn word(&mut self) -> Result<String, TemplateError> {
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match rest.chars().next() {
            Some(c) if !SPACE.contains(&c) && !".,|:=()}".contains(c) => {
                Err(TemplateError::new(format!("unexpected character {c:?}")))
            }
            _ => Ok(word.to_owned()),
        }
    }

    fn number(&mut self) -> Result<Token, TemplateError> {
        let sign = usize::from(self.rest.starts_with(['+', '-']));
        let hex = self.rest[sign..].starts_with("0x") || self.rest[sign..].starts_with("0X");
        let mut end = sign;
        for c in self.rest[sign..].chars() {
            let exponent_sign = matches!(c, '+' | '-') && !hex && self.rest[..end].ends_with(['e', 'E']);
            if !(c.is_alphanumeric() || c == '.' || c == '_' || exponent_sign) {
                break;
            }
            end += c.len_utf8();
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        parse_number(text).ok_or_else(|| TemplateError::new(format!("bad number syntax: {text:?}")))
    }

    /// A string in double quotes or a character in single ones, with Go's escapes.
    fn quoted(&mut self, quote: char) -> Result<Token, TemplateError> {
        let unterminated = || TemplateError::new("unterminated quoted string");
        let invalid = || TemplateError::new("invalid escape in quoted string");
        let mut bytes = Vec::new();
        let mut chars = self.rest[1..].chars();
        loop {
            let c = chars.next().filter(|c| *c != '\n').ok_or_else(unterminated)?;
            let c = match c {
                c if c == quote => break,
                '\\' => match chars.next().ok_or_else(unterminated)? {
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\x0b',
                    c @ ('\\' | '\'' | '"') => c,
                    kind @ ('0'..='7' | 'x' | 'u' | 'U') => {
                        let (digits, base) = match kind {
                            'x' => (2, 16),
                            'u' => (4, 16),
                            'U' => (8, 16),
                            _ => (2, 8),
                        };
                        let mut code = kind.to_digit(8).unwrap_or(0);
                        for _ in 0..digits {
                            let digit = chars.next().and_then(|c| c.to_digit(base)).ok_or_else(invalid)?;
                            code = code.wrapping_mul(base) | digit;
                        }
                        if quote == '"' && !matches!(kind, 'u' | 'U') {
                            bytes.push(u8::try_from(code).map_err(|_| invalid())?);
                            continue;
                        }
                        char::from_u32(code).ok_or_else(invalid)?
                    }
                    _ => return Err(invalid()),
                },
                c => c,
            };
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.rest = chars.as_str();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if quote == '"' {
            return Ok(Token::Str(text));
        }
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => Ok(Token::Int(i64::from(u32::from(c)))),
            _ => Err(TemplateError::new("malformed character constant")),
        }
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// An integer or float as Go writes constants: `_` between digits, `0x`, `0o`, `0b`, `017`.
fn parse_number(text: &str) -> Option<Token> {
    let digits = text.replace('_', "");
    let (sign, magnitude) = match digits.strip_prefix('-') {
        Some(magnitude) => ("-", magnitude),
        None => ("", digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let lower = magnitude.to_ascii_lowercase();
    let (base, value) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        _ if lower.contains(['.', 'e']) => {
            let plain = lower.bytes().all(|b| b.is_ascii_digit() || b".e+-".contains(&b));
            return digits.parse().ok().filter(|_| plain).map(Token::Float);
        }
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // A second sign would be taken for the number's own.
    if value.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{value}"), base).ok().map(Token::Int)
}
