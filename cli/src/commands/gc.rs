//! `layerstore gc`.

use layerstore::Collected;

use crate::args::Gc;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::number::human_size4;
use crate::output::print;

pub(super) fn run(context: &Context, args: &Gc) -> Result<(), Failure> {
    let collected = context.store()?.collect(args.dry_run, args.interrupted)?;
    print(report(&collected, args.dry_run))
}

/// A line per object and, as Docker's `prune` ends, the sum.
fn report(collected: &Collected, dry_run: bool) -> String {
    let (verb, sum) =
        if dry_run { ("Would delete", "Reclaimable space") } else { ("Deleted", "Total reclaimed space") };
    let mut out = String::new();
    for object in &collected.objects {
        out.extend([verb, " ", object.kind, ": ", &object.name, "\n"]);
    }
    let bytes = collected.objects.iter().fold(0_u64, |sum, object| sum.saturating_add(object.bytes));
    out + &format!("{sum}: {}\n", human_size4(bytes))
}

#[cfg(test)]
mod tests {
    use layerstore::CollectedObject;

    use super::*;

    #[test]
    fn the_report_ends_with_the_sum() {
        let object = |kind, name: &str, bytes| CollectedObject { kind, name: name.to_owned(), bytes };
        let objects = vec![object("blob", "sha256:ab", 1_000_000), object("tree", "1x", 2_345_678)];
        let collected = Collected { objects, dead_sessions: 0, unrecorded: 0 };
        assert_eq!(
            report(&collected, false),
            "Deleted blob: sha256:ab\nDeleted tree: 1x\nTotal reclaimed space: 3.346MB\n"
        );
        assert!(report(&collected, true).ends_with("Would delete tree: 1x\nReclaimable space: 3.346MB\n"));
    }
}
