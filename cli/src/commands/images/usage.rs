//! Sizes that need all of the store to be looked at.

use std::collections::{HashMap, HashSet};

use layerstore::ImageUsage;
use layerstore::oci::Digest;

use crate::format::number::human_size4;

/// What is shared and unique, and how many containers there are, by image ID.
#[derive(Debug, Default)]
pub(super) struct Usages(HashMap<Digest, Usage>);

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    shared: u64,
    unique: u64,
    containers: usize,
}

/// Whether a format asks for any of them.
pub(super) fn wanted(format: &str) -> bool {
    ["json", ".SharedSize", ".UniqueSize", ".Containers"].iter().any(|wanted| format.contains(wanted))
}

impl Usages {
    pub(super) fn of(images: &[ImageUsage]) -> Self {
        let mut usages: HashMap<Digest, Usage> = HashMap::new();
        let mut seen = HashSet::new();
        // A manifest may be in several indexes, and an image have several manifests, each with containers.
        let variants = images.iter().flat_map(|image| &image.variants);
        for variant in variants.filter(|variant| seen.insert(&variant.manifest)) {
            let usage = usages.entry(variant.id.clone()).or_default();
            usage.shared = variant.shared;
            usage.unique = variant.unique();
            usage.containers += variant.containers.len();
        }
        Self(usages)
    }

    /// Shared size, unique size and containers, as texts.
    pub(super) fn texts(&self, id: &Digest) -> [String; 3] {
        match self.0.get(id) {
            Some(usage) => {
                [human_size4(usage.shared), human_size4(usage.unique), usage.containers.to_string()]
            }
            None => ["N/A"; 3].map(str::to_owned),
        }
    }
}
