//! `layerstore gc`.

use layerstore::{Collected, Policy};

use crate::args::Gc;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::number::human_size4;
use crate::output::print;

pub(super) fn run(context: &Context, args: &Gc) -> Result<(), Failure> {
    let store = context.store()?;
    let policy = Policy { interrupted: args.interrupted, ..Policy::default() };
    let collected = if args.dry_run { store.plan_collection(&policy) } else { store.collect(&policy) }?;
    print(report(&collected, args.dry_run))
}

/// A line per object and, as Docker's `prune` ends, the sum.
fn report(collected: &Collected, dry_run: bool) -> String {
    let (verb, sum) =
        if dry_run { ("Would delete", "Reclaimable space") } else { ("Deleted", "Total reclaimed space") };
    let mut out = String::new();
    for object in &collected.objects {
        out.extend([verb, " ", object.kind.as_str(), ": ", &object.name, "\n"]);
    }
    out + &format!("{sum}: {}\n", human_size4(collected.freed().allocated))
}
