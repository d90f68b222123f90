//! End-to-end tests: the `layerstore` binary, on real images and on composed ones.
//!
//! `scripts/test` runs them with everything they need. Each test has a store of its own and cleans up.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in helpers as well")]

mod bad_input;
mod concurrency;
mod conformance;
mod containers;
mod disk_usage;
mod faults;
mod fixtures;
mod forms;
mod full_disk;
mod gc_policy;
mod import;
mod kill;
mod kill_gc;
mod limits;
mod login;
mod policy;
mod power_cut;
mod privilege;
mod prune;
mod pull;
mod push;
mod read_only;
mod real_images;
mod recovery;
mod remote;
mod remote_looks;
mod save;
mod scale;
mod soak;
mod stack_model;
mod stacks;
mod tiering;
mod tree_diff;
mod verbs;
mod why;

use layerstore_testkit::image::Image;
use layerstore_testkit::layer::{Entry, EntryType, Layer, LayerBuilder};

/// A layer with one file `NAME`, whose content is its name.
fn small_layer(name: &str) -> Layer {
    LayerBuilder::gzip().file(name, name).finish()
}

/// A two-layer image with the usual suspects: owners, times, attributes, links, devices, whiteouts.
fn varied_image() -> Image {
    let below = LayerBuilder::gzip()
        .entry(Entry::dir("./").mode(0o755).mtime(1_600_000_000, 1))
        .dir("etc/")
        .file("etc/hostname", "below\n")
        .entry(Entry::file("etc/shadow", "secret").mode(0o600).owner(0, 42))
        .entry(Entry::file("etc/precise", "p").mtime(1_700_000_000, 123_456_789))
        .dir("usr/")
        .dir("usr/bin/")
        .entry(Entry::file("usr/bin/tool", "#!/bin/sh\n").mode(0o4755))
        .entry(
            // cap_net_raw+ep in the form the kernel stores: revision 2, effective.
            Entry::file("usr/bin/ping", "ping").mode(0o755).xattr(
                "security.capability",
                [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
        )
        .hard_link("usr/bin/tool-too", "usr/bin/tool")
        .symlink("bin", "usr/bin")
        .symlink("etc/dangling", "/no/such/file")
        .dir("dev/")
        .entry(Entry::device("dev/null", 1, 3).mode(0o666))
        .entry(Entry::new(EntryType::Fifo, "dev/initctl").mode(0o600))
        .entry(Entry::dir("home/").owner(1000, 1000).xattr("user.note", "hello"))
        .entry(Entry::file("home/big-owner", "x").owner(3_000_000_000, 2_200_000))
        .file(b"home/n\xf6n-utf8", "latin-1")
        .file(format!("home/{}", "long-".repeat(40)), "a name of 200 bytes")
        .dir("gone/")
        .file("gone/file", "x")
        .dir("opaque/")
        .file("opaque/hidden", "x");
    let above = LayerBuilder::gzip()
        .file("etc/hostname", "above\n")
        .whiteout("gone")
        .whiteout("etc/dangling")
        .dir("opaque/")
        .file("opaque/seen", "y")
        .opaque("opaque")
        .entry(Entry::dir("usr/").mode(0o711));
    Image::new([below.finish(), above.finish()])
}
