//! `layerstore history`.

use jiff::Timestamp;
use layerstore::HistoryStep;

use crate::args::History;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::number::human_size;
use crate::format::{ellipsis, printable, time, truncate_id};
use crate::output::print;
use crate::template::{TemplateError, Value};

const TABLE: &str = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const TABLE_FOR_PROGRAMS: &str = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

const TITLES: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// How many columns of a command are shown, unless told not to truncate.
const COMMAND_WIDTH: usize = 45;

/// The year 2000. Times before it are not when anything was built, but what a tool writes that wants
/// the same bytes every time; Docker shows none of them either.
const EPOCH: i64 = 946_684_800;

pub(super) fn run(context: &Context, args: &History) -> Result<(), Failure> {
    let listing = listing(args)?;
    let steps = context.store_to_look()?.history(&args.image)?;
    print(list(&listing, &steps, Timestamp::now().as_second(), args)?)
}

fn listing(args: &History) -> Result<Listing, TemplateError> {
    Listing::new(match args.format.as_deref() {
        None | Some("table") if args.quiet => "{{.ID}}",
        None | Some("table") if args.human => TABLE,
        None | Some("table") => TABLE_FOR_PROGRAMS,
        Some(format) => format,
    })
}

fn list(listing: &Listing, steps: &[HistoryStep], now: i64, args: &History) -> Result<String, TemplateError> {
    let rows: Vec<Value> = steps.iter().map(|step| row(step, now, args, listing.is_json())).collect();
    listing.render(TITLES, &rows)
}

/// The fields of a row, in the order of Docker's JSON.
fn row(step: &HistoryStep, now: i64, args: &History, json: bool) -> Value {
    let id = step.id.as_ref().map_or_else(|| "<missing>".to_owned(), ToString::to_string);
    let created_at = step.created.map(time::rfc3339).unwrap_or_default();
    let created_since = match step.created {
        _ if !args.human => created_at.clone(),
        Some(at) if at > EPOCH => time::ago(at, now),
        _ => "N/A".to_owned(),
    };
    // JSON escapes what a terminal would obey.
    let clean = |text: &str| if json { text.replace('\t', " ") } else { printable(text) };
    let created_by = clean(&step.created_by);
    Value::fields([
        ("Comment", Value::str(clean(&step.comment))),
        ("CreatedAt", Value::str(created_at)),
        (
            "CreatedBy",
            Value::str(if args.no_trunc { created_by } else { ellipsis(&created_by, COMMAND_WIDTH) }),
        ),
        ("CreatedSince", Value::str(created_since)),
        ("ID", Value::str(if args.no_trunc { &id } else { truncate_id(&id) })),
        ("Size", Value::str(if args.human { human_size(step.size) } else { step.size.to_string() })),
    ])
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn history(line: &str) -> String {
        let words = ["layerstore", "history", "x"].into_iter().chain(line.split_whitespace());
        let Command::History(args) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        let id = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let step = |id, created, created_by: &str, size, comment: &str| HistoryStep {
            id,
            created,
            created_by: created_by.to_owned(),
            size,
            comment: comment.to_owned(),
            empty_layer: size == 0,
        };
        let long = "/bin/sh -c #(nop)  CMD [\"bash\"]\tand é more text that is very long indeed";
        let steps = [
            step(Some(id), Some(1_704_067_200), long, 0, ""),
            step(None, Some(1_704_067_200 - 9_000_000), "ADD x", 187_450_000, "buildkit.dockerfile.v0"),
            step(None, Some(0), "x\x1b[31m\ny", 0, ""),
        ];
        list(&listing(&args).unwrap(), &steps, 1_704_070_140, &args).unwrap()
    }

    /// What Docker 28.2.2 prints, but for the control characters, which it lets through.
    #[test]
    fn the_table_is_dockers() {
        let expected = "\
IMAGE          CREATED          CREATED BY                                      SIZE      COMMENT
aaaaaaaaaaaa   49 minutes ago   /bin/sh -c #(nop)  CMD [\"bash\"] and é more t…   0B       \u{20}
<missing>      3 months ago     ADD x                                           187MB     buildkit.dockerfile.v0
<missing>      N/A              x [31m y                                        0B       \u{20}
";
        assert_eq!(history(""), expected);
    }

    #[test]
    fn programs_get_numbers_and_full_texts() {
        let table = history("--human=false --no-trunc");
        assert!(table.lines().next().unwrap().contains("CREATED AT"), "{table}");
        let step = table.lines().nth(1).unwrap();
        assert!(step.contains('T') && step.contains("is very long indeed"), "{table}");
        assert!(table.contains("187450000"), "{table}");
        assert_eq!(history("-q"), "aaaaaaaaaaaa\n<missing>\n<missing>\n");
    }

    #[test]
    fn json_keeps_the_command_as_it_is() {
        let last = history("--format json").lines().last().unwrap().to_owned();
        assert!(last.starts_with(r#"{"Comment":"","CreatedAt":""#), "{last}");
        assert!(
            last.contains(
                r#""CreatedBy":"x\u001b[31m\ny","CreatedSince":"N/A","ID":"\u003cmissing\u003e","Size":"0B"}"#
            ),
            "{last}"
        );
    }
}
