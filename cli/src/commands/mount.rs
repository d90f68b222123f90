//! `layerstore mount`.

use std::os::unix::ffi::OsStrExt as _;

use layerstore::oci::Digest;
use layerstore::{LOCAL, Mounted, MountedWhat};

use crate::args::Mount;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::printable;
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

/// The ID of the image or container, or a snapshot's key, and the directory of each mount, as `podman mount` prints
/// them.
fn list(mounts: &[Mounted]) -> Result<(), Failure> {
    let mut out = Vec::new();
    for mount in mounts {
        let what = match &mount.what {
            MountedWhat::Image(id) => id.as_ref().map_or_else(|| "<none>      ".to_owned(), Digest::short),
            MountedWhat::Snapshot { owner, key } if owner == LOCAL => printable(key.get(..12).unwrap_or(key)),
            MountedWhat::Snapshot { key, .. } => printable(key),
        };
        out.extend_from_slice(what.as_bytes());
        out.push(b' ');
        out.extend_from_slice(mount.target.as_os_str().as_bytes());
        out.push(b'\n');
    }
    print(out)
}
