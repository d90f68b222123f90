//! `layerstore cat`.

use std::os::unix::ffi::OsStrExt as _;

use layerstore::Error;

use crate::args::Cat;
use crate::context::Context;
use crate::errors::{Failures, for_each};
use crate::output;

pub(super) fn run(context: &Context, args: &Cat) -> Result<(), Failures> {
    let store = context.store_to_look()?;
    for_each(&args.paths, |path| {
        let progress = context.progress();
        let file = store.open_file(&args.image, path.as_bytes(), &|event| progress.tell(&event))?;
        drop(progress);
        let what = format!("{} in {}", path.display(), args.image);
        output::copy(file, |source| Error::Read { what: what.clone(), source }.into())
    })
}
