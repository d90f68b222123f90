//! Getting the stack of a snapshot ready: every tree there, and to be trusted.

use std::fs::File;

use layerstore_oci::{DiffId, Digest};
use layerstore_store::{Link, LinkTree, Stack, TreeId, Upper, WritableTree};
use layerstore_unpack::Fixup;

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::Listener;

/// What a snapshot is stacked from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Its own tree, if it is one that was written to.
    pub(crate) own: Option<TreeId>,
    /// All trees below, topmost first.
    pub(crate) below: Vec<TreeId>,
    /// Whether the only tree below has no whiteouts, and so is what it should look like by itself.
    plain: bool,
}

impl Ready {
    /// All trees, topmost first.
    pub(crate) fn trees(&self) -> Vec<TreeId> {
        self.own.iter().chain(&self.below).cloned().collect()
    }
}

impl Layerstore {
    /// Makes sure that everything that the snapshot is stacked from is there. Layers whose trees have gone, or did not
    /// survive a power cut, are unpacked again.
    pub(crate) fn ready(&self, owner: &str, key: &str, what: &str, listener: &Listener<'_>) -> Result<Ready> {
        self.check_flavour()?;
        let mut links = self.store.links(owner, key)?;
        if self.rebuild(&links, what, listener)? {
            links = self.store.links(owner, key)?;
        }
        // Somebody may have written, and named like a layer, what image layers are above.
        let layers_from = links.iter().rposition(|link| !is_layer(link)).map_or(0, |last| last + 1);
        let (written, layers) = links.split_at(layers_from);
        let mut trees = Vec::with_capacity(links.len());
        for tree in written.iter().filter_map(|link| link.tree.as_ref()) {
            self.check_written(tree, what)?;
            trees.push(tree.id.clone());
        }
        let known: Vec<(DiffId, TreeId)> = layers
            .iter()
            .rev()
            .filter_map(|link| link.tree.as_ref())
            .filter_map(|tree| Some((tree.diff_id.clone()?, tree.id.clone())))
            .collect();
        let whiteouts = match layers {
            [one] => one.tree.as_ref().and_then(|tree| tree.whiteouts),
            _ => None,
        };
        let own = written.first().filter(|link| link.key == key).and_then(|link| link.tree.as_ref());
        let own = own.map(|tree| tree.id.clone());
        if own.is_some() {
            self.store.check_volatile(owner, key)?;
        }
        let below = self.settled_stack(what, &known, |_| Ok(()))?;
        trees.extend(below);
        let below: Vec<TreeId> = trees.iter().skip(usize::from(own.is_some())).cloned().collect();
        let plain = below.len() == 1 && whiteouts == Some(0);
        Ok(Ready { own, below, plain })
    }

    /// Unpacks layers whose trees cannot be used. Tells whether there were any.
    fn rebuild(&self, links: &[Link], what: &str, listener: &Listener<'_>) -> Result<bool> {
        let mut missing = Vec::new();
        for tree in links.iter().filter(|link| is_layer(link)).filter_map(|link| link.tree.as_ref()) {
            let Some(diff_id) = &tree.diff_id else { continue };
            if tree.trusted && self.is_there(&tree.id) {
                continue;
            }
            let Some(blob) = self.store.blob_of_layer(diff_id)? else {
                if self.is_there(&tree.id) {
                    let reason = "a layer below did not reach the disk, and its blob is gone";
                    return Err(layerstore_store::Error::Untrusted { what: what.to_owned(), reason }.into());
                }
                let path = self.store.layout().diff(&tree.id);
                return Err(layerstore_store::Error::LostTree { what: what.to_owned(), path }.into());
            };
            missing.push((blob, diff_id.clone()));
        }
        if missing.is_empty() {
            return Ok(false);
        }
        self.unpack_layers(&missing, listener)?;
        Ok(true)
    }

    /// What was written cannot be made again.
    fn check_written(&self, tree: &LinkTree, what: &str) -> Result<()> {
        if !self.is_there(&tree.id) {
            let path = self.store.layout().diff(&tree.id);
            return Err(layerstore_store::Error::LostTree { what: what.to_owned(), path }.into());
        }
        if !tree.trusted {
            let reason = "it was committed without waiting for the disk, before the machine or the mount of the store went";
            return Err(layerstore_store::Error::Untrusted { what: what.to_owned(), reason }.into());
        }
        Ok(())
    }

    /// A writable tree to put above `below`, whose root has the attributes of the root there.
    pub(crate) fn tree_above(&self, below: &[TreeId]) -> Result<WritableTree> {
        let tree = self.store.writable_tree()?;
        let Some(top) = below.first() else { return Ok(tree) };
        let path = self.store.layout().diff(top);
        let like = File::open(&path).map_err(|source| Error::File { action: "open", path, source })?;
        let failed = |source| Error::Unpack { layer: "of a container".to_owned(), source };
        let mut root = Fixup::new(&tree.diff(), &self.unpack).map_err(failed)?;
        root.directory(b"", &like.into()).map_err(failed)?;
        root.finish().map_err(failed)?;
        Ok(tree)
    }

    /// The stack to mount: writable if the snapshot has a tree of its own.
    pub(crate) fn stack_of(&self, ready: &Ready) -> Stack {
        let layout = self.store.layout();
        Stack {
            lowers: ready.below.iter().map(|id| layout.diff(id)).collect(),
            upper: ready.own.as_ref().map(|id| Upper { tree: layout.tree(id) }),
            plain: ready.plain,
        }
    }
}

/// Whether this belongs to the stack of an image. Below it nearly always everything does.
fn is_layer(link: &Link) -> bool {
    link.key.parse::<Digest>().is_ok() && link.tree.as_ref().is_some_and(|tree| tree.diff_id.is_some())
}
