//! `layerstore umount`.

use std::ffi::OsString;

use crate::args::Umount;
use crate::context::Context;
use crate::errors::{Failures, for_each};

pub(super) fn run(context: &Context, args: &Umount) -> Result<(), Failures> {
    let store = context.store()?;
    let targets: Vec<OsString> = if args.all {
        // The latest first: one may be mounted inside another.
        store.mounted()?.into_iter().rev().map(|mounted| mounted.target.into_os_string()).collect()
    } else {
        args.targets.clone()
    };
    for_each(&targets, |target| {
        store.unmount(target)?;
        Ok(())
    })
}
