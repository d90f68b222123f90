//! `layerstore rmi`.

use layerstore::Removed;
use layerstore::oci::ErrorKind;

use crate::args::Remove;
use crate::context::Context;
use crate::errors::{Failures, for_each};
use crate::output::print;

pub(super) fn run(context: &Context, args: &Remove) -> Result<(), Failures> {
    let store = context.store()?;
    for_each(&args.images, |name| match store.remove(name, args.force) {
        Ok(removed) => print(removed.iter().map(line).collect::<String>()),
        // As in Docker: what shall be gone is gone.
        Err(error) if args.force && error.kind() == ErrorKind::NotFound => {
            context.note(&error.to_string());
            Ok(())
        }
        Err(error) => Err(error.into()),
    })
}

fn line(removed: &Removed) -> String {
    match removed {
        Removed::Untagged(name) => format!("Untagged: {}\n", name.familiar()),
        Removed::Deleted(digest) => format!("Deleted: {digest}\n"),
    }
}
