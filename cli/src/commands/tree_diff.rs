//! `layerstore tree-diff`, and how differences are printed.
//!
//! Paths go to pipes as the bytes the image has; on a terminal control characters are replaced.

use std::io::{self, IsTerminal as _};

use layerstore::{Change, Error, Layerstore, Listener};

use crate::args::TreeDiff;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::printable;
use crate::output::print;
use crate::template::Value;

pub(super) fn run(context: &Context, args: &TreeDiff) -> Result<(), Failure> {
    show(context, args.format.as_deref(), |store, listener, each| {
        store.tree_diff(&args.before, &args.after, listener, each)
    })
}

/// Takes what is told of each change.
type Each<'a> = dyn FnMut(Change) -> Result<(), Error> + 'a;

/// Prints what `compare` tells.
pub(super) fn show(
    context: &Context,
    format: Option<&str>,
    compare: impl FnOnce(&Layerstore, &Listener<'_>, &mut Each<'_>) -> Result<(), Error>,
) -> Result<(), Failure> {
    let listing = format.map(Listing::new).transpose()?;
    let store = context.store_to_look()?;
    let progress = context.progress();
    let mut changes = Vec::new();
    let mut each = |change| {
        changes.push(change);
        Ok(())
    };
    compare(&store, &|event| progress.tell(&event), &mut each)?;
    drop(progress);
    match listing {
        Some(listing) => print(listing.render(TITLES, &changes.iter().map(row).collect::<Vec<_>>())?),
        None => print(text(&changes, io::stdout().is_terminal())),
    }
}

const TITLES: &[(&str, &str)] = &[("Kind", "KIND"), ("Path", "PATH")];

/// A line for each change; without control characters if `clean`.
fn text(changes: &[Change], clean: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for change in changes {
        out.extend_from_slice(format!("{} ", change.kind.letter()).as_bytes());
        if clean {
            out.extend(printable(&String::from_utf8_lossy(&change.path)).into_bytes());
        } else {
            out.extend_from_slice(&change.path);
        }
        out.push(b'\n');
    }
    out
}

/// The fields of a change for `--format`.
fn row(change: &Change) -> Value {
    Value::fields([
        ("Kind", Value::str(change.kind.letter().to_string())),
        ("Path", Value::str(String::from_utf8_lossy(&change.path))),
    ])
}

#[cfg(test)]
mod tests {
    use layerstore::ChangeKind;

    use super::*;

    #[test]
    fn names_cannot_talk_to_a_terminal() {
        let change = |kind, path: &[u8]| Change { kind, path: path.to_vec() };
        let changes = [change(ChangeKind::Added, b"/a\x1b[2J"), change(ChangeKind::Deleted, b"/\xff")];
        assert_eq!(text(&changes, true), "A /a [2J\nD /\u{fffd}\n".as_bytes());
        assert_eq!(text(&changes, false), b"A /a\x1b[2J\nD /\xff\n");
    }
}
