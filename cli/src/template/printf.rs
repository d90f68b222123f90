//! Go's `fmt.Sprintf` for the values a template has (<https://pkg.go.dev/fmt>).

#![expect(clippy::format_push_string, reason = "`write!` would add a result to ignore for short texts")]

use super::funcs::MAX_PADDING;
use super::value::Value;
use crate::format::number;

/// The flags, width and precision of one verb.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "five flags that combine freely")]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `format` with each verb replaced by its argument. What does not fit is reported in the text, as
/// Go does: `%!d(string=hi)`, `%!s(MISSING)`, `%!(EXTRA int=1)`.
pub(super) fn format(format: &str, args: &[Value]) -> String {
    let mut out = String::with_capacity(format.len());
    let mut scan = Scanner { rest: format, args, next: 0, reordered: false, bad_index: false };
    while let Some((text, verb)) = scan.rest.split_once('%') {
        out.push_str(text);
        scan.rest = verb;
        scan.verb(&mut out);
    }
    out.push_str(scan.rest);
    if !scan.reordered && scan.next < args.len() {
        out.push_str("%!(EXTRA ");
        for (i, arg) in args[scan.next..].iter().enumerate() {
            out.push_str(if i > 0 { ", " } else { "" });
            typed(arg, &mut out);
        }
        out.push(')');
    }
    out
}

struct Scanner<'a> {
    rest: &'a str,
    args: &'a [Value],
    /// The argument that comes next.
    next: usize,
    /// Some verb named its argument, so arguments left over are no mistake.
    reordered: bool,
    bad_index: bool,
}

impl Scanner<'_> {
    /// What follows a `%`.
    fn verb(&mut self, out: &mut String) {
        let mut spec = Spec::default();
        self.bad_index = false;
        loop {
            match self.rest.as_bytes().first() {
                Some(b'-') => spec.minus = true,
                Some(b'+') => spec.plus = true,
                Some(b'#') => spec.sharp = true,
                Some(b' ') => spec.space = true,
                Some(b'0') => spec.zero = true,
                _ => break,
            }
            self.rest = &self.rest[1..];
        }
        self.index();
        if self.eat('*') {
            match self.star() {
                Some(width) => {
                    spec.minus |= width < 0;
                    spec.width = usize::try_from(width.unsigned_abs()).ok();
                }
                None => out.push_str("%!(BADWIDTH)"),
            }
        } else {
            spec.width = self.number();
        }
        if self.eat('.') {
            self.index();
            if self.eat('*') {
                spec.precision = self.star().and_then(|n| usize::try_from(n).ok());
                if spec.precision.is_none() {
                    out.push_str("%!(BADPREC)");
                }
            } else {
                spec.precision = Some(self.number().unwrap_or(0));
            }
        }
        self.index();
        spec.zero &= !spec.minus;
        let mut chars = self.rest.chars();
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            return;
        };
        self.rest = chars.as_str();
        match self.args.get(self.next) {
            _ if verb == '%' => out.push('%'),
            _ if self.bad_index => out.push_str(&format!("%!{verb}(BADINDEX)")),
            None => out.push_str(&format!("%!{verb}(MISSING)")),
            Some(arg) => {
                self.next += 1;
                spec.value(verb, arg, out);
            }
        }
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// A decimal number of sane size.
    fn number(&mut self) -> Option<usize> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().ok().filter(|n| *n <= MAX_PADDING)
    }

    /// `[n]`: the argument that comes next, counted from one.
    fn index(&mut self) {
        let Some((number, rest)) = self.rest.strip_prefix('[').and_then(|r| r.split_once(']')) else {
            return;
        };
        self.rest = rest;
        self.reordered = true;
        match number.parse::<usize>() {
            Ok(n) if n >= 1 && n <= self.args.len() => self.next = n - 1,
            _ => self.bad_index = true,
        }
    }

    /// The argument for a `*`.
    fn star(&mut self) -> Option<i64> {
        let arg = self.args.get(self.next);
        self.next += usize::from(arg.is_some());
        match arg {
            Some(Value::Int(n)) if n.unsigned_abs() <= MAX_PADDING as u64 => Some(*n),
            _ => None,
        }
    }
}

/// `type=value`, as Go's reports of mistakes have it.
fn typed(value: &Value, out: &mut String) {
    if !matches!(value, Value::Nil) {
        out.push_str(value.type_name());
        out.push('=');
    }
    value.print(out);
}

impl Spec {
    fn value(self, verb: char, value: &Value, out: &mut String) {
        match (value, verb) {
            (_, 'T') => self.pad(value.type_name(), out),
            (Value::Nil, 'v') => self.pad("<nil>", out),
            (Value::Bool(b), 'v' | 't') => self.pad(if *b { "true" } else { "false" }, out),
            (Value::Int(n), 'v' | 'd' | 'b' | 'o' | 'O' | 'x' | 'X') => self.integer(verb, *n, out),
            (Value::Int(n), 'c') => self.pad(character(*n).encode_utf8(&mut [0; 4]), out),
            (Value::Int(n), 'q') => self.pad(&quote(&character(*n).to_string(), '\'', self.plus), out),
            (Value::Int(n), 'U') => {
                let shown = if self.sharp { format!(" '{}'", character(*n)) } else { String::new() };
                self.pad(&format!("U+{n:04X}{shown}"), out);
            }
            (Value::Float(f), 'v' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G') => self.float(verb, *f, out),
            (Value::Str(text), 'v' | 's' | 'q' | 'x' | 'X') => self.text(verb, text, out),
            (Value::List(_) | Value::Map(_) | Value::Struct(_), _) => {
                value.print_nested(out, &mut |element, out| self.value(verb, element, out));
            }
            _ => {
                out.push_str("%!");
                out.push(verb);
                out.push('(');
                typed(value, out);
                out.push(')');
            }
        }
    }

    /// `text` padded to the width, with zeros in front where the flag asks for them.
    fn pad(self, text: &str, out: &mut String) {
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        let fill = if self.zero { "0" } else { " " };
        if self.minus {
            out.push_str(text);
            out.push_str(&" ".repeat(missing));
        } else {
            out.push_str(&fill.repeat(missing));
            out.push_str(text);
        }
    }

    fn integer(self, verb: char, n: i64, out: &mut String) {
        let magnitude = n.unsigned_abs();
        let digits = match verb {
            'b' => format!("{magnitude:b}"),
            'o' | 'O' => format!("{magnitude:o}"),
            'x' => format!("{magnitude:x}"),
            'X' => format!("{magnitude:X}"),
            _ if self.precision == Some(0) && n == 0 => String::new(),
            _ => magnitude.to_string(),
        };
        let prefix = match verb {
            'b' if self.sharp => "0b",
            'o' if self.sharp => "0",
            'O' => "0o",
            'x' if self.sharp => "0x",
            'X' if self.sharp => "0X",
            _ => "",
        };
        let sign = self.sign(n < 0);
        let least = match (self.precision, self.width) {
            (Some(precision), _) => precision,
            (None, Some(width)) if self.zero => width.saturating_sub(sign.len()),
            _ => 0,
        };
        let zeros = "0".repeat(least.saturating_sub(digits.len()));
        Self { zero: false, ..self }.pad(&format!("{sign}{prefix}{zeros}{digits}"), out);
    }

    fn float(self, verb: char, value: f64, out: &mut String) {
        let number = match verb {
            'e' | 'E' => number::exponential(value.abs(), self.precision.unwrap_or(6)),
            'f' | 'F' => number::fixed(value.abs(), self.precision.unwrap_or(6)),
            _ => number::general(value.abs(), self.precision),
        };
        let number = if verb.is_ascii_uppercase() { number.to_ascii_uppercase() } else { number };
        let number = number.trim_start_matches('+');
        let sign = self.sign(value.is_sign_negative() && !value.is_nan());
        let zeros = match self.width {
            Some(width) if self.zero && value.is_finite() => {
                "0".repeat(width.saturating_sub(sign.len() + number.len()))
            }
            _ => String::new(),
        };
        Self { zero: false, ..self }.pad(&format!("{sign}{zeros}{number}"), out);
    }

    fn sign(self, negative: bool) -> &'static str {
        match self {
            _ if negative => "-",
            Self { plus: true, .. } => "+",
            Self { space: true, .. } => " ",
            _ => "",
        }
    }

    fn text(self, verb: char, text: &str, out: &mut String) {
        if matches!(verb, 'x' | 'X') {
            let bytes = &text.as_bytes()[..self.precision.map_or(text.len(), |p| p.min(text.len()))];
            return self.pad(&self.hex(verb, bytes), out);
        }
        let cut: String = match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        };
        match verb {
            'q' if self.sharp && !cut.contains('`') && !cut.contains(char::is_control) => {
                self.pad(&format!("`{cut}`"), out);
            }
            'q' => self.pad(&quote(&cut, '"', self.plus), out),
            'v' if self.sharp => self.pad(&quote(&cut, '"', false), out),
            _ => self.pad(&cut, out),
        }
    }

    fn hex(self, verb: char, bytes: &[u8]) -> String {
        let prefix = match verb {
            _ if !self.sharp => "",
            'x' => "0x",
            _ => "0X",
        };
        let mut hex = String::with_capacity(bytes.len() * 2);
        for (i, byte) in bytes.iter().enumerate() {
            if i > 0 && self.space {
                hex.push(' ');
            }
            if i == 0 || self.space {
                hex.push_str(prefix);
            }
            hex.push_str(&if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") });
        }
        hex
    }
}

fn character(code: i64) -> char {
    u32::try_from(code).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// A Go literal for `text`, in pure ASCII if asked for.
fn quote(text: &str, quote: char, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            c if c == quote || c == '\\' => out.extend(['\\', c]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_ascii() || !(ascii || c.is_control()) => out.push(c),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push(quote);
    out
}
