//! Which directories and files of an image need a fix-up, and where they are.

use std::collections::{BTreeMap, HashSet};

use layerstore_oci::{ChainId, DiffId};
use layerstore_store::{ImageInfo, Key, LOCAL, LayerRow, TreeId, Unsettled};
use layerstore_unpack::Fixup;
use rustix::fs::{FileType, OFlags};

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::rootfs::{Place, Rootfs};

impl Layerstore {
    /// The trees to stack for an image whose layers are all unpacked, topmost first, with its fix-up if it needs one.
    pub(crate) fn with_fixup(&self, image: &ImageInfo, layers: &[LayerRow]) -> Result<Vec<TreeId>> {
        let all = layers.iter().filter_map(|layer| Some((&layer.diff_id, &layer.tree.as_ref()?.id)));
        let trees = self.stack(all.clone())?;
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let Some(chain) = ChainId::chain(&diff_ids).pop() else { return Ok(trees) };
        let on_top = |fixup: TreeId| std::iter::once(fixup).chain(trees.iter().cloned()).collect();
        if let Some(fixup) = self.store.fixup(&chain)? {
            return Ok(on_top(fixup));
        }
        // A layer that comes several times counts each time for the links of those above it.
        let all: Vec<TreeId> = all.rev().map(|(_, tree)| tree.clone()).collect();
        let unsettled = self.store.unsettled(&all)?;
        if unsettled.iter().all(|layer| layer.implied.is_empty() && layer.links.is_empty()) {
            return Ok(trees);
        }
        let rootfs = self.linked_rootfs(&image.config.to_string(), &all, &unsettled)?;
        let files = rootfs.linked_files()?;
        let names = files.iter().flat_map(|(_, names)| names);
        let wanted = directories(&rootfs, &unsettled, names)?;
        if wanted.is_empty() {
            return Ok(trees);
        }
        let _claim = self.store.claim(&Key::Chain(chain.clone()))?;
        if let Some(fixup) = self.store.fixup(&chain)? {
            return Ok(on_top(fixup));
        }
        let session = self.store.session(LOCAL)?;
        // Its layers may have come with other images.
        self.commit_chain(&session, image, layers)?;
        let directory = session.tree_directory()?;
        let failed = |source| Error::Unpack { layer: format!("stack {chain}"), source };
        let mut fixup = Fixup::new(&directory.diff(), &self.unpack).map_err(failed)?;
        for (path, (place, layer)) in &wanted {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fixup.directory(path, rootfs.open(*layer, &place.path, flags)?).map_err(failed)?;
        }
        for (file, names) in &files {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fixup.file(names, &rootfs.open(file.top(), &file.path, flags)?).map_err(failed)?;
        }
        let usage = fixup.finish().map_err(failed)?;
        let usage =
            layerstore_store::Usage { bytes: usage.bytes, allocated: usage.allocated, inodes: usage.inodes };
        Ok(on_top(self.store.publish_fixup(&session, &chain, directory, usage)?))
    }

    /// Checks that the hard links of layers to what is below them lead to files, in every stack of `stacks` whose
    /// layers are all unpacked. Each is an image's ID and its diff IDs, lowest first.
    pub(crate) fn check_links(&self, stacks: &[(String, Vec<DiffId>)]) -> Result<()> {
        let layers = stacks.iter().flat_map(|(_, layers)| layers).collect();
        let linked = self.store.linked_below(&layers)?;
        for (image, layers) in stacks {
            if !layers.iter().any(|layer| linked.contains(layer)) {
                continue;
            }
            let mut trees = Vec::with_capacity(layers.len());
            for diff_id in layers.iter().rev() {
                trees.extend(self.store.tree(diff_id)?.filter(|tree| tree.trusted).map(|tree| tree.id));
            }
            if trees.len() == layers.len() {
                let unsettled = self.store.unsettled(&trees)?;
                self.linked_rootfs(image, &trees, &unsettled)?;
            }
        }
        Ok(())
    }

    /// The merged view of `trees`, topmost first, with the hard links that they do not have.
    fn linked_rootfs(&self, image: &str, trees: &[TreeId], unsettled: &[Unsettled]) -> Result<Rootfs> {
        let mut rootfs = self.rootfs_of(image, trees)?;
        // From the bottom, as a link may lead to another of a layer below.
        for (layer, open) in unsettled.iter().enumerate().rev() {
            rootfs.add_links(layer, &open.links)?;
        }
        Ok(rootfs)
    }
}

/// The directories of a fix-up by path, each with the layer that it is like: those that only a lower layer lists, those
/// that have one of the files `names`, and the way to them.
fn directories<'a>(
    rootfs: &Rootfs,
    unsettled: &[Unsettled],
    names: impl Iterator<Item = &'a Vec<u8>>,
) -> Result<BTreeMap<Vec<u8>, (Place, usize)>> {
    let implied: Vec<HashSet<&Vec<u8>>> =
        unsettled.iter().map(|layer| layer.implied.iter().collect()).collect();
    // The topmost layer that lists a directory itself.
    let listed_by = |place: &Place, path: &Vec<u8>| {
        place
            .layers
            .iter()
            .copied()
            .find(|layer| implied.get(*layer).is_none_or(|paths| !paths.contains(path)))
    };
    let mut wanted = BTreeMap::new();
    let want_parents = |path: &[u8], wanted: &mut BTreeMap<_, _>| -> Result<()> {
        for end in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end).chain([0]) {
            let above = path.get(..end).unwrap_or_default().to_vec();
            if let Some(place) = rootfs.exactly(&above)? {
                let layer = listed_by(&place, &above).unwrap_or(place.top());
                wanted.entry(above).or_insert((place, layer));
            }
        }
        Ok(())
    };
    for path in implied.iter().flatten().copied().collect::<HashSet<_>>() {
        let Some(place) = rootfs.exactly(path)?.filter(|place| place.kind == FileType::Directory) else {
            continue;
        };
        // The topmost layer lists it itself, or none does.
        let Some(layer) = listed_by(&place, path).filter(|layer| *layer != place.top()) else { continue };
        want_parents(path, &mut wanted)?;
        wanted.insert(path.clone(), (place, layer));
    }
    for path in names {
        want_parents(path, &mut wanted)?;
    }
    Ok(wanted)
}
