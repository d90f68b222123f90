//! `layerstore mount`.

use std::os::unix::ffi::OsStrExt as _;

use layerstore::Mounted;

use crate::args::Mount;
use crate::context::Context;
use crate::errors::Failure;
use crate::output::print;

pub(super) fn run(context: &Context, args: &Mount) -> Result<(), Failure> {
    let store = context.store()?;
    let Some(image) = &args.image else { return list(&store.mounted()?) };
    let progress = context.progress();
    let path = store.mount(image, args.dir.as_deref(), &|event| progress.tell(&event))?;
    drop(progress);
    // The bytes of the path, so that a script gets a path that exists, whatever its encoding.
    print([path.as_os_str().as_bytes(), b"\n"].concat())
}

/// The image ID and the directory of each mount, as `podman mount` prints them.
fn list(mounts: &[Mounted]) -> Result<(), Failure> {
    let mut out = Vec::new();
    for mount in mounts {
        out.extend_from_slice(mount.id.as_ref().map_or("<none>      ", |id| id.short()).as_bytes());
        out.push(b' ');
        out.extend_from_slice(mount.target.as_os_str().as_bytes());
        out.push(b'\n');
    }
    print(out)
}
