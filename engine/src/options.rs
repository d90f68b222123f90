//! How this process may unpack.

use layerstore_unpack::{Limits, Options, OverlayXattr, Ownership};
use rustix::thread::{CapabilitySet, capabilities};

/// What the process's privileges allow: everything as root, marks in the `user.` namespace inside a user
/// namespace, and the caller's own files otherwise.
pub(crate) fn for_this_process() -> Options {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let initial = in_initial_user_namespace();
    let overlay = if initial && effective.contains(CapabilitySet::SYS_ADMIN) {
        OverlayXattr::Trusted
    } else {
        OverlayXattr::User
    };
    let ownership = if initial && effective.contains(CapabilitySet::CHOWN | CapabilitySet::MKNOD) {
        Ownership::Layer
    } else {
        Ownership::Current
    };
    Options { overlay, ownership, limits: Limits::default() }
}

/// What trees look like that are unpacked with `options`.
pub(crate) fn flavour(options: &Options) -> &'static str {
    match (options.overlay, options.ownership) {
        (OverlayXattr::Trusted, _) => "root",
        (OverlayXattr::User, Ownership::Layer) => "root without CAP_SYS_ADMIN",
        (OverlayXattr::User, Ownership::Current) => "an unprivileged user",
    }
}

/// Only there are all user IDs mapped to themselves in one range.
fn in_initial_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
