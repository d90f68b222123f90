//! Naming and removing images.

use std::collections::HashSet;

use layerstore_gc::Scope;
use layerstore_oci::{Digest, Reference};
use layerstore_store::{LOCAL, Node, Object, Partial};

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::names::{Found, named, refuse_reserved};
use crate::pull::KEEP_SECONDS;

/// What removing an image did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(Reference),
    /// An image, or one of its snapshots (by chain ID, topmost first), is gone.
    Deleted(Digest),
}

/// What a collection took away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Each object and its bytes.
    pub objects: Vec<CollectedObject>,
    /// Sessions of killed commands whose files were discarded.
    pub dead_sessions: usize,
    /// Files without a row that were discarded.
    pub unrecorded: usize,
}

/// An object that went, or would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedObject {
    /// `blob`, `tree` or `snapshot`.
    pub kind: &'static str,
    /// Its digest, ID or key.
    pub name: String,
    /// Bytes that it takes.
    pub bytes: u64,
}

impl Layerstore {
    /// Gives the image `source` one more name. Whatever had that name loses it, and stays without a
    /// name if it has no other.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `InvalidInput` for a name with a digest, or one that would be taken
    /// for an ID.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// store.tag("app:1", &"registry.example.com/team/app:1".parse()?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        self.with_image(source, |found| {
            refuse_reserved(target)?;
            if target.digest().is_some() {
                return Err(Error::DigestAsTag { name: target.familiar() });
            }
            self.store.set_reference(LOCAL, &target.to_string(), &found.target)?;
            Ok(())
        })
    }

    /// Removes a name, and with the last name the image and what only it uses.
    ///
    /// An ID stands for all names of the image; if they are in several repositories, `force` is
    /// needed, as in Docker. An image that is mounted, or that containers were made from, keeps its last name, unless
    /// `force` is given: then its files go when it is not used any more and collected.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `InUse` for one that is mounted or that containers were made from,
    /// which are named, and for an ID with several names.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// for removed in store.remove("app:1", false)? {
    ///     println!("{removed:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove(&self, name: &str, force: bool) -> Result<Vec<Removed>> {
        self.store.forget_stale_mounts()?;
        self.with_image(name, |found| self.remove_found(name, found, force))
    }

    fn remove_found(&self, name: &str, found: &Found, force: bool) -> Result<Vec<Removed>> {
        let untag = match &found.by_name {
            Some(name) => vec![name.clone()],
            None => {
                let repositories: HashSet<String> = found
                    .names
                    .iter()
                    .filter_map(|name| named(name))
                    .map(|name| name.repository().to_owned())
                    .collect();
                if repositories.len() > 1 && !force {
                    let names = found.names.iter().map(|name| familiar(name)).collect();
                    return Err(Error::SeveralNames { id: found.id().short().to_owned(), names });
                }
                found.names.clone()
            }
        };
        let last = untag.len() == found.names.len();
        if last && !force {
            self.refuse_if_mounted(name, found)?;
            self.refuse_if_used(name, found)?;
        }
        let scope = if last {
            Scope::Below(HashSet::from([Object::Blob(found.target.clone())]))
        } else {
            Scope::Only(HashSet::new())
        };
        self.store.settle_for_snapshots()?;
        let forgotten = layerstore_gc::collect(&self.store, LOCAL, &untag, &scope)?;
        Ok(report(found, &untag, &forgotten.nodes))
    }

    fn refuse_if_mounted(&self, name: &str, found: &Found) -> Result<()> {
        let Some(image) = &found.image else { return Ok(()) };
        let mut mounts = self.store.live_mounts()?.into_iter();
        match mounts.find(|mount| mount.config.as_ref() == Some(&image.config)) {
            Some(mount) => Err(Error::Mounted { name: name.to_owned(), target: mount.target }),
            None => Ok(()),
        }
    }

    fn refuse_if_used(&self, name: &str, found: &Found) -> Result<()> {
        let Some(image) = &found.image else { return Ok(()) };
        let containers = self.store.containers_of(&image.config)?;
        if containers.is_empty() {
            return Ok(());
        }
        let names = containers.into_iter().map(|container| container.name).collect();
        Err(Error::UsedByContainers { name: name.to_owned(), names })
    }

    /// Takes away everything that no name, mount or running command keeps, what killed commands left,
    /// and the trash. What pulls that were interrupted have fetched is kept for a day, unless `interrupted` is given.
    /// With `dry_run` only tells what nothing keeps.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// for object in store.collect(false, false)?.objects {
    ///     println!("{} {}: {} bytes", object.kind, object.name, object.bytes);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn collect(&self, dry_run: bool, interrupted: bool) -> Result<Collected> {
        let partials = self.old_partials(interrupted)?;
        if dry_run {
            let graph =
                if interrupted { self.store.graph_without_lasting_leases() } else { self.store.graph() }?;
            let nodes: Vec<Node> = layerstore_gc::plan(&graph, &Scope::Everything)
                .into_iter()
                .map(|index| graph.nodes[index].clone())
                .collect();
            let mut objects = collected(&nodes);
            objects.extend(partials.iter().map(partial));
            return Ok(Collected { objects, ..Collected::default() });
        }
        if interrupted {
            self.store.forget_lasting_leases()?;
        }
        self.store.forget_stale_mounts()?;
        self.store.tidy_mount_points()?;
        let recovered = self.store.recover_all()?;
        self.store.settle_for_snapshots()?;
        let forgotten = layerstore_gc::collect(&self.store, LOCAL, &[], &Scope::Everything)?;
        let mut objects = collected(&forgotten.nodes);
        for old in &partials {
            // One that another command has gone on with stays.
            if self.store.discard_partial(&old.digest)? {
                objects.push(partial(old));
            }
        }
        // What cannot be unlinked does not keep anything else from being done.
        let emptied = self.store.empty_trash();
        self.store.settle_older_than(0)?;
        emptied?;
        Ok(Collected { objects, dead_sessions: recovered.sessions, unrecorded: recovered.unrecorded })
    }
}

impl Layerstore {
    /// Interrupted downloads that nobody went on with for a day, or all.
    fn old_partials(&self, all: bool) -> Result<Vec<Partial>> {
        let mut partials = self.store.partials()?;
        let old = self.store.clock().now() - KEEP_SECONDS;
        // One whose blob has come another way is of no use.
        let here = |partial: &Partial| self.store.blob(&partial.digest).is_ok_and(|blob| blob.is_some());
        partials.retain(|partial| all || partial.modified <= old || here(partial));
        Ok(partials)
    }
}

fn partial(partial: &Partial) -> CollectedObject {
    CollectedObject { kind: "partial download", name: partial.digest.to_string(), bytes: partial.bytes }
}

fn collected(nodes: &[Node]) -> Vec<CollectedObject> {
    nodes
        .iter()
        .map(|node| {
            let (kind, name) = match &node.object {
                Object::Blob(digest) => ("blob", digest.to_string()),
                Object::Tree(id) => ("tree", id.to_string()),
                Object::Snapshot { key, .. } => ("snapshot", key.clone()),
            };
            CollectedObject { kind, name, bytes: node.bytes }
        })
        .collect()
}

fn report(found: &Found, untagged: &[String], nodes: &[Node]) -> Vec<Removed> {
    let mut removed = Vec::new();
    removed.extend(untagged.iter().filter_map(|name| named(name)).map(Removed::Untagged));
    let is_gone = |digest: &Digest| {
        nodes.iter().any(|node| matches!(&node.object, Object::Blob(blob) if blob == digest))
    };
    if is_gone(found.id()) {
        removed.push(Removed::Deleted(found.id().clone()));
    }
    let chains = nodes.iter().filter_map(|node| match &node.object {
        // Other owners may have had the same stack.
        Object::Snapshot { owner, key } if owner == LOCAL => key.parse().ok(),
        _ => None,
    });
    removed.extend(chains.map(Removed::Deleted));
    removed
}

fn familiar(name: &str) -> String {
    named(name).map_or_else(|| name.to_owned(), |reference| reference.familiar())
}
