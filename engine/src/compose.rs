//! What a stack of trees makes of what its layers leave open.
//!
//! Layers are hostile, and all of them together even more: paths of two thousand directories, through links of other
//! layers, in hundreds of layers. So paths are looked up in order, each from where the one before left off, and the
//! work is limited.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use layerstore_store::Unsettled;
use layerstore_unpack::shown;
use rustix::fs::FileType;

use crate::error::{Error, Result};
use crate::rootfs::{Place, Rootfs, components};

/// What a fix-up consists of.
#[derive(Debug, Default)]
pub(crate) struct Composed {
    /// Directories by path, a parent before what is in it, each with the layer that it is like.
    pub(crate) directories: BTreeMap<Vec<u8>, (Place, usize)>,
    /// Files with all names that they get.
    pub(crate) files: Vec<(Place, Vec<Vec<u8>>)>,
}

/// Directories that may be opened for any stack, and so many more for each thing that a layer leaves open and each
/// layer. Together they take seconds; real images take some thousands.
const STEPS: u64 = 2_000_000;
const STEPS_EACH: u64 = 20;

/// Settles what the layers of `rootfs` leave open, which `unsettled` says of each of them, topmost first.
pub(crate) fn compose(rootfs: &mut Rootfs, unsettled: &[Unsettled]) -> Result<Composed> {
    resolve_links(rootfs, unsettled)?;
    let files = linked_files(rootfs)?;
    let directories = directories(rootfs, unsettled, files.iter().flat_map(|(_, names)| names))?;
    Ok(Composed { directories, files })
}

/// Finds out what the hard links of each layer to those below it lead to.
pub(crate) fn resolve_links(rootfs: &mut Rootfs, unsettled: &[Unsettled]) -> Result<()> {
    let open: usize = unsettled.iter().map(|layer| layer.implied.len() + layer.links.len()).sum();
    let each = STEPS_EACH.saturating_mul(rootfs.depth() as u64);
    rootfs.limit_steps(STEPS.saturating_add(each.saturating_mul(open as u64)));
    // From the bottom, as a link may lead to another of a layer below.
    for (layer, Unsettled { links, .. }) in unsettled.iter().enumerate().rev() {
        let mut known: HashMap<&[u8], Place> = HashMap::new();
        for (path, target) in links {
            let place = match known.get(target.as_slice()) {
                Some(place) => place.clone(),
                None => {
                    let place = lower_file(rootfs, layer, path, target)?;
                    known.insert(target, place.clone());
                    place
                }
            };
            rootfs.links.entry(path.clone()).or_default().push((layer, place));
        }
    }
    Ok(())
}

fn lower_file(rootfs: &Rootfs, layer: usize, path: &[u8], target: &[u8]) -> Result<Place> {
    let broken = |reason| Error::BrokenLink {
        image: rootfs.image.clone(),
        entry: shown(path),
        target: shown(target),
        reason,
    };
    match rootfs.resolve_in(rootfs.root(layer + 1), target, false) {
        Ok(place) if place.kind == FileType::Directory => Err(broken("is a directory")),
        Err(Error::NoPath { .. }) => Err(broken("is not there")),
        other => other,
    }
}

type Names = BTreeSet<Vec<u8>>;

/// The files that hard links lead to, each with all its names in the merged view.
fn linked_files(rootfs: &Rootfs) -> Result<Vec<(Place, Vec<Vec<u8>>)>> {
    // By the file's own path, which several layers may have.
    let mut files: BTreeMap<Vec<u8>, Vec<(Place, Names)>> = BTreeMap::new();
    let mut walk = Walk::new(rootfs);
    for path in rootfs.links.keys().collect::<BTreeSet<_>>() {
        let Some(seen) = walk.to(path)? else { continue };
        // Another layer may have something else there.
        let is_link = rootfs.links.get(path).is_some_and(|links| links.iter().any(|(_, file)| *file == seen));
        if is_link {
            let of_path = files.entry(seen.path.clone()).or_default();
            match of_path.iter_mut().find(|(file, _)| *file == seen) {
                Some((_, names)) => {
                    names.insert(path.clone());
                }
                None => of_path.push((seen, Names::from([path.clone()]))),
            }
        }
    }
    let mut walk = Walk::new(rootfs);
    for (own, files) in &mut files {
        // Its own name, unless another layer has something else there.
        let seen = walk.to(own)?;
        if let Some((_, names)) = files.iter_mut().find(|(file, _)| Some(file) == seen.as_ref()) {
            names.insert(own.clone());
        }
    }
    let all = files.into_values().flatten();
    Ok(all.map(|(file, names)| (file, names.into_iter().collect())).collect())
}

/// The directories of a fix-up: those that only a lower layer lists, those that have one of the files `names`, and the
/// way to them.
fn directories<'a>(
    rootfs: &Rootfs,
    unsettled: &'a [Unsettled],
    names: impl Iterator<Item = &'a Vec<u8>>,
) -> Result<BTreeMap<Vec<u8>, (Place, usize)>> {
    let implied: Vec<HashSet<&Vec<u8>>> =
        unsettled.iter().map(|layer| layer.implied.iter().collect()).collect();
    // The topmost layer that lists a directory itself.
    let listed_by = |place: &Place, path: &Vec<u8>| {
        let lists = |layer: &usize| implied.get(*layer).is_none_or(|paths| !paths.contains(path));
        place.layers.iter().chain(&place.beneath).copied().find(lists)
    };
    // Nothing is below the lowest layer that could say otherwise.
    let lowest = implied.len().saturating_sub(1);
    let candidates: BTreeSet<&Vec<u8>> = implied.iter().take(lowest).flatten().copied().collect();
    let mut wanted: BTreeSet<Vec<u8>> = names.map(|name| parent(name)).collect();
    let mut walk = Walk::new(rootfs);
    for path in candidates {
        // If the topmost layer lists it itself, or none does, it is as it should be.
        if let Some(place) = walk.to(path)?.filter(|place| place.kind == FileType::Directory)
            && listed_by(&place, path).is_some_and(|layer| layer != place.top())
        {
            wanted.insert(path.clone());
        }
    }
    let mut directories = BTreeMap::new();
    let mut walk = Walk::new(rootfs);
    for path in wanted {
        if walk.to(&path)?.is_none_or(|place| place.kind != FileType::Directory) {
            continue;
        }
        let mut path = path;
        for place in walk.way() {
            // With all that it is in.
            if directories.contains_key(&path) {
                break;
            }
            let layer = listed_by(place, &path).unwrap_or(place.top());
            let above = parent(&path);
            directories.insert(path, (place.clone(), layer));
            path = above;
        }
    }
    Ok(directories)
}

fn parent(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default().to_vec()
}

/// Looks up paths without symbolic links, one after the other.
struct Walk<'a> {
    rootfs: &'a Rootfs,
    /// The root, and the names and places from there to the last path.
    way: Vec<(Vec<u8>, Place)>,
}

impl<'a> Walk<'a> {
    fn new(rootfs: &'a Rootfs) -> Self {
        Self { rootfs, way: vec![(Vec::new(), rootfs.root(0))] }
    }

    /// The file at `path`; `None` if there is none, or a link on its way.
    fn to(&mut self, path: &[u8]) -> Result<Option<Place>> {
        let names: Vec<&[u8]> = components(path).collect();
        let known =
            self.way.iter().skip(1).zip(&names).take_while(|((known, _), name)| known == *name).count();
        self.way.truncate(1 + known);
        for name in names.into_iter().skip(known) {
            let Some((_, here)) = self.way.last() else { return Ok(None) };
            if here.kind != FileType::Directory {
                return Ok(None);
            }
            let Some(next) = self.rootfs.step(here, name)? else { return Ok(None) };
            self.way.push((name.to_vec(), next));
        }
        Ok(self.way.last().map(|(_, place)| place.clone()))
    }

    /// The last path that was found, and all that it is in up to the root.
    fn way(&self) -> impl Iterator<Item = &Place> {
        self.way.iter().rev().map(|(_, place)| place)
    }
}
