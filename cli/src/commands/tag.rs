//! `layerstore tag`.

use layerstore::Error;
use layerstore::oci::Reference;

use crate::args::Tag;
use crate::context::Context;
use crate::errors::Failure;

pub(super) fn run(context: &Context, args: &Tag) -> Result<(), Failure> {
    let target: Reference = args.target.parse().map_err(Error::from)?;
    for note in context.store()?.tag(&args.source, &target)? {
        context.note(&note);
    }
    Ok(())
}
