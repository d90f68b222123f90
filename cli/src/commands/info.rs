//! `layerstore info`.

use layerstore::Info;
use serde_json::{Value as Json, json};

use super::print_object;
use crate::args::Info as Args;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::number::human_size4;

pub(super) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let info = context.store_to_look()?.info()?;
    print_object(&object(&info), args.format.as_deref(), || text(&info))
}

fn object(info: &Info) -> Json {
    json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Root": info.root.display().to_string(),
        "Filesystem": info.filesystem,
        "Available": info.available,
        "Names": info.references,
        "Images": info.images,
        "Blobs": { "Count": info.blobs.0, "Size": info.blobs.1 },
        "Trees": { "Count": info.trees.0, "Size": info.trees.1 },
        "PartialDownloads": { "Count": info.partials.0, "Size": info.partials.1 },
        "Mounts": info.mounts,
        "OverlayXattrs": info.overlay_xattrs,
        "KeepsOwners": info.keeps_owners,
        "Sandbox": sandbox(info),
        "KernelVersion": info.kernel,
    })
}

fn text(info: &Info) -> String {
    let counted = |(count, bytes)| format!("{count} ({})", human_size4(bytes));
    let owners = if info.keeps_owners { "kept" } else { "not kept: files belong to this user" };
    let lines = [
        ("Version", env!("CARGO_PKG_VERSION").to_owned()),
        ("Root", info.root.display().to_string()),
        ("Filesystem", format!("{}, {} available", info.filesystem, human_size4(info.available))),
        ("Images", info.images.to_string()),
        ("Names", info.references.to_string()),
        ("Blobs", counted(info.blobs)),
        ("Trees", counted(info.trees)),
        ("Partial downloads", counted(info.partials)),
        ("Mounts", info.mounts.to_string()),
        ("Overlay attributes", format!("{}.overlay", info.overlay_xattrs)),
        ("Owners", owners.to_owned()),
        ("Sandbox", sandbox(info).to_owned()),
        ("Kernel", info.kernel.clone()),
    ];
    lines.map(|(name, value)| format!("{name}: {value}\n")).concat()
}

fn sandbox(info: &Info) -> &'static str {
    match (info.sandbox_available, info.sandbox_wanted) {
        (_, false) => "off",
        (true, true) => "Landlock",
        (false, true) => "not available: the kernel has no Landlock",
    }
}
