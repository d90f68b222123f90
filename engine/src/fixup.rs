//! Fix-ups of images: made when a stack is first used.

use layerstore_oci::{ChainId, DiffId};
use layerstore_store::{ImageInfo, Key, LOCAL, LayerRow, Session, TreeId};
use layerstore_unpack::{Fixup, Options};
use rustix::fs::OFlags;

use crate::Layerstore;
use crate::compose::{compose, resolve_links};
use crate::error::{Error, Result};

impl Layerstore {
    /// The trees to stack for an image whose layers are all unpacked, topmost first, with its fix-up if it needs one.
    pub(crate) fn with_fixup(&self, image: &ImageInfo, layers: &[LayerRow]) -> Result<Vec<TreeId>> {
        let all: Vec<(DiffId, TreeId)> = layers
            .iter()
            .filter_map(|layer| Some((layer.diff_id.clone(), layer.tree.as_ref()?.id.clone())))
            .collect();
        // Its layers may have come with other images.
        let record = |session: &Session| self.commit_chain(session, image, layers);
        self.settled_stack(&image.config.to_string(), &all, record)
    }

    /// The same for `layers`, lowest first, of what is called `name`. `record` makes sure that there is a snapshot for
    /// the stack.
    pub(crate) fn settled_stack(
        &self,
        name: &str,
        layers: &[(DiffId, TreeId)],
        record: impl FnOnce(&Session) -> Result<()>,
    ) -> Result<Vec<TreeId>> {
        let trees = self.stack(layers.iter().map(|(diff_id, tree)| (diff_id, tree)))?;
        let diff_ids: Vec<_> = layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
        let Some(chain) = ChainId::chain(&diff_ids).pop() else { return Ok(trees) };
        if self.store.is_settled(&chain)? {
            return Ok(trees);
        }
        let on_top = |fixup: TreeId| std::iter::once(fixup).chain(trees.iter().cloned()).collect();
        if let Some(fixup) = self.store.fixup(&chain)? {
            return Ok(on_top(fixup));
        }
        // A layer that comes several times counts each time for the links of those above it.
        let all: Vec<TreeId> = layers.iter().rev().map(|(_, tree)| tree.clone()).collect();
        let unsettled = self.store.unsettled(&all)?;
        if unsettled.iter().all(|layer| layer.implied.is_empty() && layer.links.is_empty()) {
            self.store.settle_stack(&chain)?;
            return Ok(trees);
        }
        let mut rootfs = self.rootfs_of(name, &all)?;
        let composed = compose(&mut rootfs, &unsettled)?;
        if composed.directories.is_empty() {
            self.store.settle_stack(&chain)?;
            return Ok(trees);
        }
        let _claim = self.claim(&Key::Chain(chain.clone()))?;
        if let Some(fixup) = self.store.fixup(&chain)? {
            return Ok(on_top(fixup));
        }
        // What killed commands left of others goes first.
        self.store.recover()?;
        let session = self.store.session(LOCAL)?;
        record(&session)?;
        let directory = session.tree_directory()?;
        let failed = |source| Error::Unpack { layer: format!("stack {chain}"), source };
        let options = Options { limits: self.unpack_policy()?.limits, ..self.unpack };
        let mut fixup = Fixup::new(&directory.diff(), &options).map_err(failed)?;
        for (path, (place, layer)) in &composed.directories {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fixup.directory(path, &rootfs.open(*layer, &place.path, flags)?).map_err(failed)?;
        }
        for (file, names) in &composed.files {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fixup.file(names, &rootfs.open(file.top(), &file.path, flags)?).map_err(failed)?;
        }
        let usage = fixup.finish().map_err(failed)?;
        let usage =
            layerstore_store::Usage { bytes: usage.bytes, allocated: usage.allocated, inodes: usage.inodes };
        let (fixup, replaces) = self.store.publish_fixup(&session, &chain, directory, usage)?;
        drop(session);
        // One of another life of the filesystem would be made again in the next: in another mount namespace, say.
        if replaces {
            self.store.settle_older_than(0)?;
        }
        Ok(on_top(fixup))
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
                resolve_links(&mut self.rootfs_of(image, &trees)?, &unsettled)?;
            }
        }
        Ok(())
    }
}
