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
use crate::template::Value;

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

pub(super) fn run(context: &Context, args: &History) -> Result<(), Failure> {
    let format = match args.format.as_deref() {
        None | Some("table") if args.quiet => "{{.ID}}",
        None | Some("table") if args.human => TABLE,
        None | Some("table") => TABLE_FOR_PROGRAMS,
        Some(format) => format,
    };
    let listing = Listing::new(format)?;
    let steps = context.store()?.history(&args.image)?;
    let now = Timestamp::now().as_second();
    let rows: Vec<Value> = steps.iter().map(|step| row(step, now, args, listing.is_json())).collect();
    print(listing.render(TITLES, &rows)?)
}

/// The fields of a row, in the order of Docker's JSON.
fn row(step: &HistoryStep, now: i64, args: &History, json: bool) -> Value {
    let id = step.id.as_ref().map_or_else(|| "<missing>".to_owned(), ToString::to_string);
    let created_at = step.created.map(time::rfc3339).unwrap_or_default();
    let created_since = match step.created {
        Some(at) if args.human => time::ago(at, now),
        _ => created_at.clone(),
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
