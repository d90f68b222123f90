//! Which directories of an image need a fix-up, and where their attributes are.

use std::collections::{BTreeMap, HashSet};

use layerstore_oci::ChainId;
use layerstore_store::{ImageInfo, Key, LOCAL, LayerRow, TreeId};
use layerstore_unpack::Fixup;
use rustix::fs::{FileType, OFlags};

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::rootfs::{Place, Rootfs};

impl Layerstore {
    /// The trees of an image with its fix-up on top, if it needs one. `trees` are the image's own, topmost first.
    pub(crate) fn with_fixup(
        &self,
        image: &ImageInfo,
        layers: &[LayerRow],
        trees: Vec<TreeId>,
    ) -> Result<Vec<TreeId>> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let Some(chain) = ChainId::chain(&diff_ids).pop() else { return Ok(trees) };
        let on_top = |fixup: TreeId| std::iter::once(fixup).chain(trees.iter().cloned()).collect();
        if let Some(fixup) = self.store.fixup(&chain)? {
            return Ok(on_top(fixup));
        }
        let implied = self.implied(&trees)?;
        if implied.iter().all(HashSet::is_empty) {
            return Ok(trees);
        }
        let rootfs = self.rootfs_of(&image.config.to_string(), &trees)?;
        let wanted = directories(&rootfs, &implied)?;
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
        let mut fixup = Fixup::new(&directory.diff()).map_err(failed)?;
        for (path, (place, layer)) in &wanted {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fixup.directory(path, rootfs.open(*layer, &place.path, flags)?).map_err(failed)?;
        }
        let usage = fixup.finish(&self.unpack).map_err(failed)?;
        let usage =
            layerstore_store::Usage { bytes: usage.bytes, allocated: usage.allocated, inodes: usage.inodes };
        Ok(on_top(self.store.publish_fixup(&session, &chain, directory, usage)?))
    }

    fn implied(&self, trees: &[TreeId]) -> Result<Vec<HashSet<Vec<u8>>>> {
        let implied = self.store.implied(trees)?;
        Ok(implied.into_iter().map(|paths| paths.into_iter().collect()).collect())
    }
}

/// The directories of a fix-up by path, each with the layer that it is like: those that only a lower layer lists, and
/// the way to them.
fn directories(rootfs: &Rootfs, implied: &[HashSet<Vec<u8>>]) -> Result<BTreeMap<Vec<u8>, (Place, usize)>> {
    let mut wanted = BTreeMap::new();
    let candidates: HashSet<&Vec<u8>> = implied.iter().flatten().collect();
    for path in candidates {
        let Some(place) = rootfs.exactly(path)?.filter(|place| place.kind == FileType::Directory) else {
            continue;
        };
        let listed_by = |place: &Place, path: &Vec<u8>| {
            place
                .layers
                .iter()
                .copied()
                .find(|layer| implied.get(*layer).is_none_or(|paths| !paths.contains(path)))
        };
        // The topmost layer lists it itself, or none does.
        let Some(layer) = listed_by(&place, path).filter(|layer| *layer != place.top()) else { continue };
        for end in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end).chain([0]) {
            let above = path.get(..end).unwrap_or_default().to_vec();
            if let Some(place) = rootfs.exactly(&above)? {
                let layer = listed_by(&place, &above).unwrap_or(place.top());
                wanted.entry(above).or_insert((place, layer));
            }
        }
        wanted.insert(path.clone(), (place, layer));
    }
    Ok(wanted)
}
