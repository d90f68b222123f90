//! `--format` of the verbs that list: a table, JSON or a template per row.

use crate::template::{Template, TemplateError, Value};

use super::table;

/// A format that has been read and can be applied to rows.
#[derive(Debug)]
pub(crate) struct Listing {
    template: Template,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Table,
    Json,
    Lines,
}

impl Listing {
    /// Reads a `--format` as Docker does: `json`, a text that begins with `table`, or a template;
    /// `\t` and `\n` stand for tab and newline.
    pub(crate) fn new(format: &str) -> Result<Self, TemplateError> {
        let (kind, text) = match format.strip_prefix("table") {
            Some(text) => (Kind::Table, text),
            None if format == "json" => (Kind::Json, "{{json .}}"),
            None => (Kind::Lines, format),
        };
        let text = text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        Ok(Self { template: Template::parse(&text)?, kind })
    }

    /// Whether rows are printed as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.kind == Kind::Json
    }

    /// The whole listing. `titles` gives each field the title of its column.
    ///
    /// Nothing is printed before every row is rendered, so that a mistake in the template does not
    /// leave half a listing.
    pub(crate) fn render(&self, titles: &[(&str, &str)], rows: &[Value]) -> Result<String, TemplateError> {
        let mut out = String::new();
        if self.kind == Kind::Table {
            let titles = Value::map(titles.iter().map(|(field, title)| (field, Value::str(title))));
            out.push_str(&self.template.render_header(&titles));
            out.push('\n');
        }
        for row in rows {
            out.push_str(&self.template.render(row)?);
            out.push('\n');
        }
        Ok(match self.kind {
            Kind::Table => table::align(&out),
            // Docker's rows leave Go's encoder safe for HTML: `<none>` is `\u003cnone\u003e`.
            Kind::Json => out.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e"),
            Kind::Lines => out,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: &[(&str, &str)] = &[("ID", "IMAGE ID"), ("Repository", "REPOSITORY"), ("Size", "SIZE")];

    fn rows() -> Vec<Value> {
        let row = |id: &str, repository: &str, size: &str| {
            Value::fields([
                ("ID", Value::str(id)),
                ("Repository", Value::str(repository)),
                ("Size", Value::str(size)),
            ])
        };
        vec![row("0123456789ab", "localhost/app", "187MB"), row("ba9876543210", "<none>", "5B")]
    }

    fn list(format: &str) -> Result<String, TemplateError> {
        Listing::new(format)?.render(TITLES, &rows())
    }

    #[test]
    fn a_table_has_a_head() {
        let expected = "\
REPOSITORY      IMAGE ID       SIZE
localhost/app   0123456789ab   187MB
<none>          ba9876543210   5B
";
        assert_eq!(list(r"table {{.Repository}}\t{{.ID}}\t{{.Size}}").unwrap(), expected);
        assert_eq!(
            list(r"table {{upper .Repository}}\t{{.ID}}\t{{.Size}}").unwrap().lines().next(),
            expected.lines().next()
        );
        assert_eq!(Listing::new("table {{.ID}}").unwrap().render(TITLES, &[]).unwrap(), "IMAGE ID\n");
    }

    #[test]
    fn templates_and_json_give_a_line_per_row() {
        assert_eq!(list("{{.ID}}: {{.Size}}").unwrap(), "0123456789ab: 187MB\nba9876543210: 5B\n");
        assert_eq!(list(r"{{.ID}}\t{{.Size}}").unwrap(), "0123456789ab\t187MB\nba9876543210\t5B\n");
        assert_eq!(
            list("json").unwrap().lines().last(),
            Some(r#"{"ID":"ba9876543210","Repository":"\u003cnone\u003e","Size":"5B"}"#)
        );
        assert_eq!(Listing::new("json").unwrap().render(TITLES, &[]).unwrap(), "");
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert_eq!(list("{{.Nope}}").unwrap_err().fields, ["ID", "Repository", "Size"]);
        assert!(list(r"table {{.ID}}\t{{.Nope}}").is_err());
        assert!(Listing::new("{{.ID").is_err());
    }
}
