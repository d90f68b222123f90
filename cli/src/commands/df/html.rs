//! `df --html`: filling the picture.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;
use layerstore::oci::Digest;
use layerstore::{Collected, DetailedUsage, LayerDigests, Policy, Scope, Space, familiar};

use crate::context::Context;
use crate::errors::Failure;
use crate::new_file::Destination;
use crate::output::print;
use crate::picture::data::{
    Filesystem, Garbage, Picture, PictureContainer, PictureImage, PictureLayer, PolicyPreview, Row, Size,
};

const DAY: i64 = 24 * 60 * 60;

pub(super) fn write(context: &Context, file: &Path) -> Result<(), Failure> {
    let store = context.store_to_look()?;
    let now = Timestamp::now().as_second();
    let commands = commands(now);
    let policies: Vec<Policy> = commands.iter().map(|(_, policy)| policy.clone()).collect();
    let (found, plans) = store.usage_and_plans(&policies)?;
    // What the layers of an image are called never changes, so it may be read later.
    let mut picture = picture_of(&found, &store.layer_digests()?, now);
    picture.root = context.root()?.display().to_string();
    let plans = commands.iter().map(|(command, _)| *command).zip(&plans);
    picture.policies = previews(plans, &found);
    let page = crate::picture::page(&picture);
    if file == Path::new("-") {
        return print(page);
    }
    let failed = |error| {
        Failure::from(layerstore::Error::File { action: "write", path: file.to_owned(), source: error })
    };
    let mut destination = Destination::open(file).map_err(failed)?;
    destination.file().write_all(page.as_bytes()).map_err(failed)?;
    destination.finish().map_err(failed)?;
    context.talk(&format!("Wrote {}", file.display()));
    Ok(())
}

/// The commands whose outcome is shown.
fn commands(now: i64) -> [(&'static str, Policy); 6] {
    let unused = || Policy { scope: Scope::Unused, ..Policy::default() };
    let since = |days: i64| Policy { unused_since: Some(now - days * DAY), ..unused() };
    [
        ("gc", Policy::default()),
        ("gc --dangling", Policy { scope: Scope::Dangling, ..Policy::default() }),
        ("gc --all", unused()),
        ("gc --unused-for 7d", since(7)),
        ("gc --unused-for 30d", since(30)),
        ("gc --keep-last 3", Policy { keep_last: Some(3), ..unused() }),
    ]
}

/// What they would do now.
fn previews<'a>(
    plans: impl Iterator<Item = (&'a str, &'a Collected)>,
    found: &DetailedUsage,
) -> Vec<PolicyPreview> {
    let familiar_names: Vec<Vec<String>> =
        found.images.iter().map(|image| image.names.iter().map(|name| familiar(name)).collect()).collect();
    plans
        .map(|(command, plan)| PolicyPreview {
            command: format!("layerstore {command}"),
            freed: plan.freed().allocated,
            images: gone(plan, &familiar_names),
            garbage: true,
            note: String::new(),
        })
        .collect()
}

/// Images of which all names go.
fn gone(plan: &Collected, images: &[Vec<String>]) -> Vec<usize> {
    let gone: HashSet<&str> = plan.names.iter().map(|name| name.name.as_str()).collect();
    let goes = |names: &[String]| names.iter().all(|name| gone.contains(name.as_str()));
    images.iter().enumerate().filter(|(_, names)| goes(names)).map(|(index, _)| index).collect()
}

fn picture_of(found: &DetailedUsage, digests: &LayerDigests, now: i64) -> Picture {
    let mut layers: Vec<PictureLayer> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut images = Vec::new();
    for (number, image) in found.images.iter().enumerate() {
        let mut own = Vec::new();
        for variant in &image.variants {
            let digests = digests.get(&variant.manifest);
            for (position, layer) in variant.layers.iter().enumerate() {
                let Some(named) = digests.and_then(|digests| digests.get(position)) else { continue };
                let key = named.diff_id.to_string();
                let at = *index.entry(key.clone()).or_insert_with(|| {
                    layers.push(PictureLayer { diff_id: key, ..PictureLayer::default() });
                    layers.len() - 1
                });
                let entry = &mut layers[at];
                if let Some((digest, size)) = &layer.blob {
                    // The same layer may be here in several compressed forms.
                    if entry.blob.as_deref() != Some(&digest.to_string()) {
                        entry.blob_bytes += size.allocated;
                    }
                    entry.blob = Some(digest.to_string());
                    entry.media = named.media_type.clone().unwrap_or_default();
                }
                if let Some((_, size)) = &layer.tree {
                    entry.tree_bytes = size.allocated;
                    entry.files = size.inodes;
                }
                if !own.contains(&at) {
                    own.push(at);
                    entry.containers += variant.containers.len() as u64;
                }
                if entry.images.last() != Some(&number) {
                    entry.images.push(number);
                }
            }
        }
        let shown = image.variants.first();
        images.push(PictureImage {
            names: image
                .names
                .iter()
                .filter(|name| name.parse::<Digest>().is_err())
                .map(|name| familiar(name))
                .collect(),
            id: shown.map_or(&image.target, |variant| &variant.id).to_string(),
            platform: shown.map(|variant| variant.platform.clone()).unwrap_or_default(),
            created: shown.and_then(|variant| variant.created),
            last_used: image.last_used_at,
            pulled: image.pulled_at,
            pinned: image.pinned,
            containers: image.variants.iter().flat_map(|variant| variant.containers.clone()).collect(),
            mounted: image.variants.iter().any(|variant| !variant.mounts.is_empty()),
            freed: image.freed.allocated,
            layers: own,
        });
    }
    let Space { total, available, .. } = found.usage.space;
    let sum = found.usage.total.unwrap_or_default();
    Picture {
        root: String::new(),
        made_at: now,
        filesystem: Filesystem { total, available },
        total: Size { apparent: sum.apparent, allocated: sum.allocated },
        rows: found.usage.parts.iter().map(|(kind, part)| row(super::name(*kind), part)).collect(),
        images,
        layers,
        containers: found
            .containers
            .iter()
            .map(|container| PictureContainer {
                name: container.name.clone(),
                image: container.image.clone(),
                used: used(container),
                bytes: container.size.allocated,
            })
            .collect(),
        garbage: found
            .usage
            .parts
            .iter()
            .filter(|(_, part)| part.reclaimable > 0)
            .map(|(kind, part)| Garbage { what: super::name(*kind).to_owned(), bytes: part.reclaimable })
            .collect(),
        policies: Vec::new(),
    }
}

/// Who uses a container, in words; nothing if nobody does.
fn used(container: &layerstore::ContainerUsage) -> String {
    match (&container.mounted, &container.in_use) {
        (Some(path), _) => format!("mounted at {}", path.display()),
        (None, Some(user)) => format!("by {user}"),
        (None, None) => String::new(),
    }
}

fn row(kind: &str, part: &layerstore::Part) -> Row {
    Row {
        kind: kind.to_owned(),
        count: part.count,
        apparent: part.size.apparent,
        allocated: part.size.allocated,
        reclaimable: part.reclaimable,
    }
}
