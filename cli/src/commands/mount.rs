//! `layerstore mount`.

use std::os::unix::ffi::OsStrExt as _;

use crate::args::Mount;
use crate::context::Context;
use crate::errors::Failure;
use crate::output::print;

pub(super) fn run(context: &Context, args: &Mount) -> Result<(), Failure> {
    let store = context.store()?;
    let progress = context.progress();
    let path = store.mount(&args.image, args.dir.as_deref(), &|event| progress.tell(&event))?;
    drop(progress);
    // The bytes of the path, so that a script gets a path that exists, whatever its encoding.
    print([path.as_os_str().as_bytes(), b"\n"].concat())
}
