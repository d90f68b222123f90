//! Naming and removing images.

use std::collections::HashSet;

use layerstore_oci::{Digest, ErrorKind, Reference};
use layerstore_store::{LOCAL, Object, Unless, Untag, Victim};

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::names::{Found, named, refuse_reserved};
use crate::pins::refuse_pinned;

/// What removing an image did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(Reference),
    /// An image, or one of its snapshots (by chain ID, topmost first), is gone.
    Deleted(Digest),
}

impl Layerstore {
    /// Gives the image `source` one more name. Whatever had that name loses it, and stays without a
    /// name if it has no other.
    ///
    /// Returns what a person should know, and that is no error: that layers which were evicted cannot be fetched any more,
    /// since this was the last name that said from where.
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
    pub fn tag(&self, source: &str, target: &Reference) -> Result<Vec<String>> {
        self.with_image(source, |found| {
            refuse_reserved(target)?;
            if target.digest().is_some() {
                return Err(Error::DigestAsTag { name: target.familiar() });
            }
            let name = target.to_string();
            let ((), notes) = self.noting_what_is_lost(std::slice::from_ref(&name), || {
                self.store.set_reference(LOCAL, &name, &found.target)?;
                Ok(())
            })?;
            Ok(notes)
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
    /// `NotFound` if there is no such image; `InUse` for a pinned name, for one that is mounted or that containers were made from,
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
                    return Err(Error::SeveralNames { id: found.id().short(), names });
                }
                found.names.clone()
            }
        };
        // It may take a while, so it comes before anything is looked at.
        self.store.settle_for_snapshots()?;
        if !force {
            refuse_pinned(name, found, &untag)?;
        }
        let last = untag.len() == found.names.len();
        if !force {
            self.refuse_last_source(name, found, &untag)?;
        }
        if last && !force {
            self.refuse_if_mounted(name, found)?;
            self.refuse_if_used(name, found)?;
        }
        // Nothing else needs what only this image led to; what is left is a matter of the next collection.
        let victims = if last { self.store.below(&found.target)? } else { Vec::new() };
        // What was just refused, once more, in the transaction that removes the name.
        let unless = match &found.image {
            _ if force => Unless::Never,
            Some(image) if last => Unless::Claimed(vec![image.manifest.clone()]),
            _ => Unless::Claimed(Vec::new()),
        };
        let untagged: Vec<Untag> = untag
            .iter()
            .map(|name| Untag {
                owner: LOCAL.to_owned(),
                name: name.clone(),
                target: found.target.clone(),
                unless: unless.clone(),
            })
            .collect();
        let victims: Vec<Victim> =
            victims.into_iter().map(|object| Victim { object, evicted: false }).collect();
        let forgotten = loop {
            match self.store.forget(&untagged, &victims) {
                // Claimed since it was looked at: by whom, if that is still so; and if not, once more.
                Err(error) if error.kind() == ErrorKind::InUse => self.refuse_claimed(name, &untag)?,
                done => break done?,
            }
        };
        let gone: Vec<Object> =
            forgotten.victims.into_iter().map(|index| victims[index].object.clone()).collect();
        self.store.sweep(&gone)?;
        Ok(report(found, &untag, &gone))
    }

    /// Refuses to take away the names by which alone layers can be fetched again that other names need.
    fn refuse_last_source(&self, name: &str, found: &Found, untag: &[String]) -> Result<()> {
        let Some(image) = &found.image else { return Ok(()) };
        for (blob, diff_id) in self.store.absent_layers(&image.manifest)? {
            let sources = self.store.pulled_names_with(&blob)?;
            let last = !sources.is_empty() && sources.iter().all(|source| untag.contains(source));
            if last && self.store.is_evicted(&blob, &diff_id)? {
                let mut others = self.store.names_with(&blob)?;
                others.retain(|other| !untag.contains(other));
                if !others.is_empty() {
                    let others = others.iter().map(|other| familiar(other)).collect();
                    return Err(Error::LastSource { name: name.to_owned(), others });
                }
            }
        }
        Ok(())
    }

    /// The same checks on the rows as they are now: a mount that is being made has one already.
    fn refuse_claimed(&self, name: &str, untag: &[String]) -> Result<()> {
        let found = self.find(name)?;
        refuse_pinned(name, &found, untag)?;
        let Some(image) = &found.image else { return Ok(()) };
        let mut mounts = self.store.mounts()?.into_iter();
        if let Some(mount) = mounts.find(|mount| mount.config.as_ref() == Some(&image.config)) {
            return Err(Error::Mounted { name: name.to_owned(), target: mount.target });
        }
        self.refuse_if_used(name, &found)
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
}

fn report(found: &Found, untagged: &[String], gone: &[Object]) -> Vec<Removed> {
    let names = untagged.iter().filter_map(|name| named(name)).map(Removed::Untagged);
    let id = Some(found.id()).filter(|id| gone.contains(&Object::Blob((*id).clone())));
    names.chain(id.cloned().map(Removed::Deleted)).chain(deleted_chains(gone)).collect()
}

/// The chains among what is gone.
fn deleted_chains(gone: &[Object]) -> impl Iterator<Item = Removed> + '_ {
    let chains = gone.iter().filter_map(|object| match object {
        // Other owners may have had the same stack.
        Object::Snapshot { owner, key } if owner == LOCAL => key.parse().ok(),
        _ => None,
    });
    chains.map(Removed::Deleted)
}

fn familiar(name: &str) -> String {
    named(name).map_or_else(|| name.to_owned(), |reference| reference.familiar())
}
