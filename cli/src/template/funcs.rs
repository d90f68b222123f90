//! The functions a template may call: Go's own and those Docker adds.

use std::rc::Rc;

use super::printf;
use super::value::Value;

/// Which set of functions is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Functions {
    Docker,
    /// For the head of a table, where functions that would change a title give it back as it is.
    Header,
}

/// The longest text that `pad` or a width in `printf` may ask for.
pub(super) const MAX_PADDING: usize = 1_000_000;

/// Name, fewest and most arguments.
const FUNCTIONS: [(&str, usize, usize); 25] = [
    ("and", 1, usize::MAX),
    ("eq", 1, usize::MAX),
    ("ge", 2, 2),
    ("gt", 2, 2),
    ("html", 0, usize::MAX),
    ("index", 1, usize::MAX),
    ("join", 2, 2),
    ("json", 1, 1),
    ("le", 2, 2),
    ("len", 1, 1),
    ("lower", 1, 1),
    ("lt", 2, 2),
    ("ne", 2, 2),
    ("not", 1, 1),
    ("or", 1, usize::MAX),
    ("pad", 3, 3),
    ("print", 0, usize::MAX),
    ("printf", 1, usize::MAX),
    ("println", 0, usize::MAX),
    ("slice", 1, usize::MAX),
    ("split", 2, 2),
    ("title", 1, 1),
    ("truncate", 2, 2),
    ("upper", 1, 1),
    ("urlquery", 0, usize::MAX),
];

pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, _, _)| *known == name)
}

pub(super) fn check_count(name: &str, got: usize) -> Result<(), String> {
    match FUNCTIONS.iter().find(|(known, _, _)| *known == name) {
        Some(&(_, min, usize::MAX)) if got < min => {
            Err(format!("wrong number of args for {name}: want at least {min} got {got}"))
        }
        Some(&(_, min, max)) if got < min || got > max => {
            Err(format!("wrong number of args for {name}: want {min} got {got}"))
        }
        _ => Ok(()),
    }
}

/// Calls a function with a number of arguments that [`check_count`] has passed.
pub(super) fn call(functions: Functions, name: &str, args: &[Value]) -> Result<Value, String> {
    if functions == Functions::Header
        && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate")
    {
        return text(&args[0]).map(|title| Value::Str(title.clone()));
    }
    Ok(match name {
        "json" => Value::str(args[0].to_json().to_string()),
        "split" => split(text(&args[0])?, text(&args[1])?),
        "join" => join(&args[0], text(&args[1])?)?,
        "title" => Value::str(title(text(&args[0])?)),
        "lower" => Value::str(text(&args[0])?.to_lowercase()),
        "upper" => Value::str(text(&args[0])?.to_uppercase()),
        "pad" => pad(text(&args[0])?, padding(&args[1])?, padding(&args[2])?),
        "truncate" => Value::str(truncate(text(&args[0])?, int(&args[1])?)?),
        "len" => len(&args[0])?,
        "index" => args[1..].iter().try_fold(args[0].clone(), |item, at| index(&item, at))?,
        "slice" => slice(&args[0], &args[1..])?,
        "not" => Value::Bool(!args[0].truth()),
        "eq" => {
            if args.len() < 2 {
                return Err("missing argument for comparison".to_owned());
            }
            let mut equal = false;
            for other in &args[1..] {
                equal = equal || args[0].equals(other)?;
            }
            Value::Bool(equal)
        }
        "ne" => Value::Bool(!args[0].equals(&args[1])?),
        "lt" => Value::Bool(args[0].compare(&args[1])?.is_lt()),
        "le" => Value::Bool(args[0].compare(&args[1])?.is_le()),
        "gt" => Value::Bool(args[0].compare(&args[1])?.is_gt()),
        "ge" => Value::Bool(args[0].compare(&args[1])?.is_ge()),
        "print" => Value::str(print(args)),
        "println" => Value::str(println(args)),
        "printf" => Value::str(printf::format(text(&args[0])?, &args[1..])),
        "html" => Value::str(html(&print(args))),
        "urlquery" => Value::str(url_query(&print(args))),
        _ => return Err("no such function".to_owned()),
    })
}

fn text(value: &Value) -> Result<&Rc<str>, String> {
    match value {
        Value::Str(text) => Ok(text),
        other => Err(wrong_type("string", other)),
    }
}

fn int(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(n) => Ok(*n),
        other => Err(wrong_type("int", other)),
    }
}

fn wrong_type(expected: &str, value: &Value) -> String {
    format!("wrong type for value; expected {expected}; got {}", value.type_name())
}

fn padding(value: &Value) -> Result<usize, String> {
    let width = int(value)?;
    usize::try_from(width)
        .ok()
        .filter(|width| *width <= MAX_PADDING)
        .ok_or_else(|| format!("cannot pad by {width}"))
}

fn pad(text: &Rc<str>, prefix: usize, suffix: usize) -> Value {
    if text.is_empty() {
        return Value::Str(text.clone());
    }
    Value::str(format!("{}{text}{}", " ".repeat(prefix), " ".repeat(suffix)))
}

/// The first bytes of a text. Docker cuts within characters; this keeps them whole.
fn truncate(text: &str, length: i64) -> Result<&str, String> {
    let length = usize::try_from(length).map_err(|_| format!("cannot truncate to {length}"))?;
    Ok(&text[..text.floor_char_boundary(length)])
}

fn split(text: &str, separator: &str) -> Value {
    let parts: Vec<Value> = if separator.is_empty() {
        text.chars().map(|c| Value::str(c.encode_utf8(&mut [0; 4]))).collect()
    } else {
        text.split(separator).map(Value::str).collect()
    };
    Value::List(Some(parts.into()))
}

fn join(list: &Value, separator: &str) -> Result<Value, String> {
    let list = match list {
        Value::Nil => &[],
        list => list.as_list().ok_or_else(|| wrong_type("[]string", list))?,
    };
    let parts: Result<Vec<&str>, String> = list.iter().map(|item| text(item).map(|text| &**text)).collect();
    Ok(Value::str(parts?.join(separator)))
}

/// Go's `strings.Title`: the first letter of every word in upper case, the rest as it is.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let separator = match before {
            '_' => false,
            c if c.is_ascii() => !c.is_ascii_alphanumeric(),
            c => !c.is_alphanumeric() && c.is_whitespace(),
        };
        if separator {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        before = c;
    }
    out
}

fn len(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Nil => 0,
        Value::Str(text) => text.len(),
        Value::List(_) => value.as_list().map_or(0, <[Value]>::len),
        Value::Map(_) | Value::Struct(_) => value.as_fields().map_or(0, <[_]>::len),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(item: &Value, at: &Value) -> Result<Value, String> {
    match (item, at) {
        (Value::List(_), Value::Int(i)) => {
            let list = item.as_list().unwrap_or_default();
            let element = usize::try_from(*i).ok().and_then(|i| list.get(i));
            element.cloned().ok_or_else(|| format!("index out of range: {i}"))
        }
        (Value::Str(text), Value::Int(i)) => {
            let byte = usize::try_from(*i).ok().and_then(|i| text.as_bytes().get(i));
            byte.map(|b| Value::Int((*b).into())).ok_or_else(|| format!("index out of range: {i}"))
        }
        (Value::List(_) | Value::Str(_), other) => {
            Err(format!("cannot index slice/array with type {}", other.type_name()))
        }
        (Value::Map(_) | Value::Struct(_), Value::Str(key)) => {
            // The zero value of the map's type: labels that are not set are the empty string.
            let typed = matches!(item, Value::Map(_)) && item.holds_strings();
            let zero = if typed { Value::str("") } else { Value::Nil };
            Ok(item.get(key).unwrap_or(zero))
        }
        (Value::Map(_) | Value::Struct(_), other) => {
            Err(format!("value has type {}; should be string", other.type_name()))
        }
        (Value::Nil, _) => Err("index of untyped nil".to_owned()),
        (other, _) => Err(format!("can't index item of type {}", other.type_name())),
    }
}

fn slice(item: &Value, bounds: &[Value]) -> Result<Value, String> {
    let length = match item {
        Value::Str(text) => text.len(),
        Value::List(_) => item.as_list().map_or(0, <[Value]>::len),
        Value::Nil => return Err("slice of untyped nil".to_owned()),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let most = if matches!(item, Value::Str(_)) { 2 } else { 3 };
    if bounds.len() > most {
        return Err(format!("too many slice indexes: {}", bounds.len()));
    }
    let mut range = [0, length, length];
    for (slot, bound) in range.iter_mut().zip(bounds) {
        let bound = int(bound)?;
        *slot = usize::try_from(bound)
            .ok()
            .filter(|i| *i <= length)
            .ok_or_else(|| format!("index out of range: {bound}"))?;
    }
    let [start, end, capacity] = range;
    if start > end || end > capacity {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    Ok(match item {
        Value::Str(text) => Value::str(String::from_utf8_lossy(&text.as_bytes()[start..end])),
        _ => Value::List(item.as_list().map(|list| list[start..end].into())),
    })
}

/// Go's `fmt.Sprint`: a space between two operands when neither is a string.
fn print(args: &[Value]) -> String {
    let mut out = String::new();
    for (i, arg) in args.iter().enumerate() {
        if i > 0 && !matches!(arg, Value::Str(_)) && !matches!(args[i - 1], Value::Str(_)) {
            out.push(' ');
        }
        arg.print(&mut out);
    }
    out
}

fn println(args: &[Value]) -> String {
    let mut out = String::new();
    for (i, arg) in args.iter().enumerate() {
        out.push_str(if i > 0 { " " } else { "" });
        arg.print(&mut out);
    }
    out.push('\n');
    out
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn url_query(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => out.push(char::from(b)),
            b => {
                let digits = [b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]];
                out.extend(digits.map(char::from));
            }
        }
    }
    out
}
