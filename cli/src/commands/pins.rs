//! `layerstore pin` and `layerstore unpin`.

use crate::args::{Pin, Unpin};
use crate::context::Context;
use crate::errors::{Failure, Failures, for_each};
use crate::format::printable;
use crate::output::print;

pub(super) fn pin(context: &Context, args: &Pin) -> Result<(), Failures> {
    let store = context.store()?;
    for_each(&args.images, |image| tell(&store.pin(image)?))
}

pub(super) fn unpin(context: &Context, args: &Unpin) -> Result<(), Failures> {
    let store = context.store()?;
    for_each(&args.images, |image| tell(&store.unpin(image)?))
}

fn tell(names: &[String]) -> Result<(), Failure> {
    let lines: Vec<String> = names.iter().map(|name| printable(name) + "\n").collect();
    print(lines.concat())
}
