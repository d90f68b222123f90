//! `layerstore df`.

mod details;
mod html;

use std::io::IsTerminal as _;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use layerstore::{DiskUsage, Part, PartKind};

use crate::args::Df;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::number::human_size4;
use crate::output::print;
use crate::template::Value;

const TITLES: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Apparent", "APPARENT"),
    ("Allocated", "ALLOCATED"),
];

const TABLE: &str = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

pub(super) fn run(context: &Context, args: &Df) -> Result<(), Failure> {
    if let Some(file) = &args.html {
        return html::write(context, file);
    }
    let Some(seconds) = args.watch else { return once(context, args, "") };
    let terminal = std::io::stdout().is_terminal();
    loop {
        // On a terminal the cursor goes home, and what is below it goes.
        once(context, args, if terminal { "\x1b[H\x1b[2J" } else { "" })?;
        thread::sleep(Duration::from_secs(seconds));
        if !terminal {
            print("\n")?;
        }
    }
}

fn once(context: &Context, args: &Df, before: &str) -> Result<(), Failure> {
    let format = args.format.as_deref().filter(|format| *format != "table");
    let listing = Listing::new(format.unwrap_or(TABLE))?;
    let store = context.store_to_look()?;
    if !context.verbose {
        let usage = store.disk_usage(!args.no_scan)?;
        print(before.to_owned() + &table(&usage, &listing, format.is_none())?)?;
        warn(context, &usage);
        return Ok(());
    }
    let found = store.detailed_usage(!args.no_scan)?;
    let now = Timestamp::now().as_second();
    let text = if listing.is_json() {
        details::json(&found, now)
    } else if format.is_some() {
        return Err(Failure::usage("a template has no use for -v").hint("leave out one of --format and -v"));
    } else {
        details::text(&found, now)? + "\nStore space usage:\n\n" + &table(&found.usage, &listing, true)?
    };
    print(before.to_owned() + &text)?;
    warn(context, &found.usage);
    Ok(())
}

fn warn(context: &Context, usage: &DiskUsage) {
    let missing = &usage.missing;
    if let Some(first) = missing.first() {
        let others =
            if missing.len() > 1 { format!(" and {} more", missing.len() - 1) } else { String::new() };
        context.note(&format!("{first}{others} should be in the store and is not there"));
    }
    if !usage.unknown.is_empty() && !context.verbose {
        context.note("`df -v` lists what is unknown, `gc` deletes it");
    }
}

fn table(usage: &DiskUsage, listing: &Listing, ours: bool) -> Result<String, Failure> {
    let mut rows = vec![row("Images", &usage.images, true), row("Containers", &usage.containers, true)];
    rows.extend(usage.parts.iter().map(|(kind, part)| row(name(*kind), part, counts(*kind))));
    if let Some(size) = usage.total {
        let reclaimable = usage.parts.iter().map(|(_, part)| part.reclaimable).sum();
        rows.push(row("Total", &Part { size, reclaimable, ..Part::default() }, false));
    }
    let text = listing.render(TITLES, &rows)?;
    if !ours {
        return Ok(text);
    }
    // Docker's two lines, and where the bytes are.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(3, "");
    Ok(lines.join("\n") + "\n")
}

/// As the first column shows it.
pub(crate) fn name(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Blobs => "Blobs",
        PartKind::Trees => "Trees",
        PartKind::Writable => "Writable layers",
        PartKind::Fixups => "Fix-ups",
        PartKind::Ingests => "Ingests",
        PartKind::Trash => "Trash",
        PartKind::Database => "Database",
        PartKind::Unknown => "Unknown",
    }
}

/// Whether a number of things says anything.
fn counts(kind: PartKind) -> bool {
    !matches!(kind, PartKind::Trash | PartKind::Database)
}

fn row(name: &str, part: &Part, counted: bool) -> Value {
    let count = |count: u64| Value::str(if counted { count.to_string() } else { String::new() });
    let active = if name == "Unknown" { Value::str("") } else { count(part.active) };
    Value::fields([
        ("Active", active),
        ("Reclaimable", Value::str(reclaimable(part))),
        ("Size", Value::str(human_size4(part.size.allocated))),
        ("TotalCount", count(part.count)),
        ("Type", Value::str(name)),
        ("Apparent", number(part.size.apparent)),
        ("Allocated", number(part.size.allocated)),
    ])
}

fn number(bytes: u64) -> Value {
    Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// With its part of the whole, as Docker has it.
fn reclaimable(part: &Part) -> String {
    let bytes = human_size4(part.reclaimable);
    match (u128::from(part.reclaimable) * 100).checked_div(u128::from(part.size.allocated)) {
        Some(percent) => format!("{bytes} ({percent}%)"),
        None => bytes,
    }
}

#[cfg(test)]
mod tests {
    use layerstore::{Size, Space};

    use super::*;

    fn part(count: u64, active: u64, allocated: u64, reclaimable: u64) -> Part {
        let size = Size { apparent: allocated / 2, allocated, inodes: count };
        Part { count, active, size, reclaimable }
    }

    fn usage() -> DiskUsage {
        let parts = vec![
            (PartKind::Blobs, part(7, 6, 1_000_000, 100_000)),
            (PartKind::Trees, part(4, 4, 2_500_000, 0)),
            (PartKind::Trash, part(0, 0, 0, 0)),
            (PartKind::Unknown, part(1, 0, 4096, 4096)),
        ];
        let total = Some(parts.iter().map(|(_, part)| part.size).sum());
        DiskUsage {
            images: part(2, 1, 3_400_000, 1_200_000),
            containers: part(1, 1, 8192, 0),
            parts,
            total,
            unknown: Vec::new(),
            missing: Vec::new(),
            space: Space { filesystem: "ext4".to_owned(), total: 10, available: 5 },
        }
    }

    #[test]
    fn the_table_is_dockers_and_then_ours() {
        let expected = "\
TYPE         TOTAL     ACTIVE    SIZE      RECLAIMABLE
Images       2         1         3.4MB     1.2MB (35%)
Containers   1         1         8.192kB   0B (0%)

Blobs        7         6         1MB       100kB (10%)
Trees        4         4         2.5MB     0B (0%)
Trash                            0B        0B
Unknown      1                   4.096kB   4.096kB (100%)
Total                            3.504MB   104.1kB (2%)
";
        assert_eq!(table(&usage(), &Listing::new(TABLE).unwrap(), true).unwrap(), expected);
    }

    #[test]
    fn json_has_dockers_fields_and_then_ours() {
        let text = table(&usage(), &Listing::new("json").unwrap(), false).unwrap();
        let expected = concat!(
            r#"{"Active":"1","Reclaimable":"1.2MB (35%)","Size":"3.4MB","TotalCount":"2","Type":"Images","#,
            r#""Apparent":1700000,"Allocated":3400000}"#
        );
        assert_eq!(text.lines().next(), Some(expected));
        assert_eq!(text.lines().count(), 7);
    }
}
