//! `layerstore gc`.

mod report;
pub(super) mod wishes;

use jiff::Timestamp;
use layerstore::Collected;

use crate::args::{Conditions, Gc, read_policy};
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::output::print;

pub(super) use report::{reason, total};

pub(super) fn run(context: &Context, args: &Gc) -> Result<(), Failure> {
    let listing = args.format.as_deref().filter(|format| *format != "table").map(Listing::new).transpose()?;
    let now = Timestamp::now().as_second();
    let file = match &args.policy {
        Some(path) => read_policy(path)?,
        None => Conditions::default(),
    };
    let wishes = wishes::resolve(&args.conditions, &file, now)?;
    let store = context.store_or_look(args.dry_run)?;
    let mut policy = wishes.policy;
    if let Some((high, low)) = wishes.watermark {
        policy.goal = store.watermark(high, low)?;
        if policy.goal.is_none() {
            // Without a scope no image goes; what nothing needs does.
            policy.scope = layerstore::Scope::Garbage;
            let space = store.space()?;
            context.note(&format!(
                "{} of the filesystem are in use, less than {high} %: no image goes",
                report::share(&space)
            ));
        }
    }
    let (collected, end) =
        told(if args.dry_run { store.plan_collection(&policy) } else { store.collect(&policy) })?;
    print(match &listing {
        Some(listing) => report::rows(&collected, listing, context.verbose)?,
        None => report::text(&collected, args.dry_run, context.verbose, now),
    })?;
    if let Some(missed) = report::missed(&collected, args.dry_run) {
        context.note(&missed);
    } else if !context.verbose
        && let Some(untouched) = report::untouched(&collected)
    {
        context.note(&untouched);
    }
    end
}

/// What is gone, which is told in any case, and how the collection ended.
pub(super) fn told(
    result: layerstore::Result<Collected>,
) -> Result<(Collected, Result<(), Failure>), Failure> {
    match result {
        Err(layerstore::Error::Unfinished { collected, source }) => {
            Ok((*collected, Err(Failure::from(*source).hint("`layerstore gc` tries again"))))
        }
        other => Ok((other?, Ok(()))),
    }
}
