//! Go's `text/template` with Docker's functions, as far as `--format` needs it.
//!
//! The language is that of <https://pkg.go.dev/text/template> with the functions of Docker's
//! `templates` package; the tests hold what Docker 28 prints. Left out is what has no place in one
//! argument of a command line (`define`, `template`, `block`), and the functions `call` and
//! `js`. Where Docker tries a template first on its Go types and then on the JSON they came
//! from, this has one kind of data ([`Value`]) that behaves like the more lenient of the two.

mod exec;
mod funcs;
mod lex;
mod parse;
mod printf;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use value::{Shape, Value};

use exec::Exec;
use funcs::Functions;

/// Why a template cannot be read or run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateError {
    /// One clause, without a full stop.
    pub(crate) message: String,
    /// The fields that exist, where the template asks for another.
    pub(crate) fields: Vec<String>,
}

impl TemplateError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), fields: Vec::new() }
    }
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TemplateError {}

/// A template that has been read and can be run on any number of values.
#[derive(Debug)]
pub(crate) struct Template(Vec<parse::Node>);

impl Template {
    pub(crate) fn parse(template: &str) -> Result<Self, TemplateError> {
        parse::parse(template).map(Self)
    }

    /// The text for one value.
    pub(crate) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        let mut exec = Exec::new(data, Functions::Docker);
        exec.list(&self.0, data)?;
        Ok(exec.out)
    }

    /// The head of a table: the template run on column titles, which functions leave as they are.
    /// What cannot be evaluated ends it, as in Docker, without being an error.
    pub(crate) fn render_header(&self, titles: &Value) -> String {
        let mut exec = Exec::new(titles, Functions::Header);
        drop(exec.list(&self.0, titles));
        exec.out
    }
}
