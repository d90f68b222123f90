//! The data a template sees: JSON with Go's difference between a struct and a map.

use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::Value as Json;

use crate::format::number;

/// A value as Go's `text/template` tells values apart.
///
/// JSON has one kind of object, Go has two that behave differently: an unknown field of a struct is
/// an error, an unknown key of a map is `<no value>`. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Go's untyped nil; also what a missing map key gives.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    /// `None` is Go's nil slice: empty, but `null` in JSON.
    List(Option<Rc<[Value]>>),
    /// Sorted by key, as Go prints and ranges over maps. `None` is Go's nil map.
    Map(Option<Rc<[Field]>>),
    /// Fields in the order they were declared.
    Struct(Rc<[Field]>),
}

/// A key or field name with its value.
pub(crate) type Field = (Rc<str>, Value);

/// Which JSON objects are maps and which fields are lists even when they are `null`, by their key.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shape {
    /// Keys whose object, with all below it, is a map; every other object is a struct.
    pub(crate) maps: &'static [&'static str],
    /// Keys whose `null` is an empty list.
    pub(crate) lists: &'static [&'static str],
}

impl Value {
    /// A text.
    pub(crate) fn str(text: impl AsRef<str>) -> Self {
        Self::Str(Rc::from(text.as_ref()))
    }

    /// A map from its keys and values.
    pub(crate) fn map<K: AsRef<str>>(fields: impl IntoIterator<Item = (K, Self)>) -> Self {
        let mut fields: Vec<Field> =
            fields.into_iter().map(|(key, value)| (Rc::from(key.as_ref()), value)).collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Map(Some(fields.into()))
    }

    /// A struct from its fields.
    pub(crate) fn fields<K: AsRef<str>>(fields: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Struct(fields.into_iter().map(|(name, value)| (Rc::from(name.as_ref()), value)).collect())
    }

    /// JSON as a template value.
    pub(crate) fn from_json(json: &Json, shape: Shape) -> Self {
        Self::convert(json, shape, false)
    }

    fn convert(json: &Json, shape: Shape, as_map: bool) -> Self {
        match json {
            Json::Null => Self::Nil,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => match n.as_i64() {
                Some(i) => Self::Int(i),
                None => Self::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(s) => Self::str(s),
            Json::Array(list) => {
                Self::List(Some(list.iter().map(|v| Self::convert(v, shape, as_map)).collect()))
            }
            // Docker's sets (`ExposedPorts`, `Volumes`) are maps to an empty struct.
            Json::Object(object) if as_map && object.is_empty() => Self::Struct(Rc::from([])),
            Json::Object(object) => {
                let fields =
                    object.iter().map(|(key, value)| (key, Self::convert_field(key, value, shape, as_map)));
                if as_map { Self::map(fields) } else { Self::fields(fields) }
            }
        }
    }

    fn convert_field(key: &str, value: &Json, shape: Shape, as_map: bool) -> Self {
        let is_map = shape.maps.contains(&key);
        match value {
            Json::Null if is_map => Self::Map(None),
            Json::Null if shape.lists.contains(&key) => Self::List(None),
            Json::Object(object) if is_map && object.is_empty() => Self::Map(Some(Rc::from([]))),
            value => Self::convert(value, shape, as_map || is_map),
        }
    }

    /// The elements of a list.
    pub(crate) fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list.as_deref().unwrap_or_default()),
            _ => None,
        }
    }

    /// The fields of a map or struct.
    pub(crate) fn as_fields(&self) -> Option<&[Field]> {
        match self {
            Self::Map(fields) => Some(fields.as_deref().unwrap_or_default()),
            Self::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    /// The value of a key or field, if this has keys or fields and the one asked for.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        self.as_fields()?.iter().find(|(name, _)| &**name == key).map(|(_, value)| value.clone())
    }

    /// The value as JSON, for the `json` function.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Nil | Self::List(None) | Self::Map(None) => Json::Null,
            Self::Bool(b) => Json::Bool(*b),
            Self::Int(i) => (*i).into(),
            Self::Float(f) => serde_json::Number::from_f64(*f).map_or(Json::Null, Json::Number),
            Self::Str(s) => Json::String(s.to_string()),
            Self::List(Some(list)) => Json::Array(list.iter().map(Self::to_json).collect()),
            Self::Map(Some(fields)) | Self::Struct(fields) => {
                Json::Object(fields.iter().map(|(k, v)| (k.to_string(), v.to_json())).collect())
            }
        }
    }

    /// Go's truth: false for zero values and anything empty; a struct is always true.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(b) => *b,
            Self::Int(i) => *i != 0,
            Self::Float(f) => *f != 0.0,
            Self::Str(s) => !s.is_empty(),
            Self::List(list) => list.as_deref().is_some_and(|l| !l.is_empty()),
            Self::Map(fields) => fields.as_deref().is_some_and(|f| !f.is_empty()),
            Self::Struct(_) => true,
        }
    }

    /// The name Go gives the type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::List(_) if self.holds_strings() => "[]string",
            Self::List(_) => "[]interface {}",
            Self::Map(_) if self.holds_strings() => "map[string]string",
            Self::Map(_) => "map[string]interface {}",
            Self::Struct(_) => "struct",
        }
    }

    /// Whether a list or map has nothing but strings in it, so that Go would have typed it so.
    pub(crate) fn holds_strings(&self) -> bool {
        let is_string = |value: &Self| matches!(value, Self::Str(_));
        match self {
            Self::List(_) => self.as_list().is_some_and(|list| list.iter().all(is_string)),
            _ => self.as_fields().is_some_and(|fields| fields.iter().all(|(_, value)| is_string(value))),
        }
    }

    /// Go's `<`, for values that have an order.
    pub(crate) fn compare(&self, other: &Self) -> Result<Ordering, String> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Ok(a.cmp(b)),
            (Self::Str(a), Self::Str(b)) => Ok(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => Ok(a.partial_cmp(b).unwrap_or(Ordering::Greater)),
            _ if self.is_basic() && other.is_basic() && self.type_name() != other.type_name() => {
                Err("incompatible types for comparison".into())
            }
            _ => Err("invalid type for comparison".into()),
        }
    }

    /// Go's `==`.
    pub(crate) fn equals(&self, other: &Self) -> Result<bool, String> {
        match (self, other) {
            (Self::Nil, other) | (other, Self::Nil) => Ok(matches!(other, Self::Nil)),
            (Self::Bool(a), Self::Bool(b)) => Ok(a == b),
            (Self::Int(a), Self::Int(b)) => Ok(a == b),
            #[expect(clippy::float_cmp, reason = "the template asked for exact equality")]
            (Self::Float(a), Self::Float(b)) => Ok(a == b),
            (Self::Str(a), Self::Str(b)) => Ok(a == b),
            _ if self.is_basic() && other.is_basic() => Err("incompatible types for comparison".into()),
            _ => {
                let odd = if self.is_basic() { other } else { self };
                Err(format!("non-comparable type {}", odd.type_name()))
            }
        }
    }

    fn is_basic(&self) -> bool {
        matches!(self, Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Str(_))
    }

    /// Appends the value as Go's `%v` prints it.
    pub(crate) fn print(&self, out: &mut String) {
        match self {
            Self::Nil => out.push_str("<nil>"),
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Int(i) => out.push_str(&i.to_string()),
            Self::Float(f) => out.push_str(&number::shortest(*f)),
            Self::Str(s) => out.push_str(s),
            _ => self.print_nested(out, &mut |value, out| value.print(out)),
        }
    }

    /// Appends a list, map or struct in Go's brackets, each element by `element`.
    pub(crate) fn print_nested(&self, out: &mut String, element: &mut dyn FnMut(&Self, &mut String)) {
        let (open, close) = match self {
            Self::List(_) => ("[", "]"),
            Self::Map(_) => ("map[", "]"),
            _ => ("{", "}"),
        };
        out.push_str(open);
        for (i, value) in self.as_list().unwrap_or_default().iter().enumerate() {
            out.push_str(if i > 0 { " " } else { "" });
            element(value, out);
        }
        for (i, (key, value)) in self.as_fields().unwrap_or_default().iter().enumerate() {
            out.push_str(if i > 0 { " " } else { "" });
            if matches!(self, Self::Map(_)) {
                element(&Self::Str(key.clone()), out);
                out.push(':');
            }
            element(value, out);
        }
        out.push_str(close);
    }
}
