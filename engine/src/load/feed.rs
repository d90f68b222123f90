//! Which layers are received, which are reused, and who does it when several want the same.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use layerstore_oci::{Descriptor, DiffId, Digest};
use layerstore_store::{Claim, Key, Presence};

use super::Loader;
use super::contents::Contents;
use super::plan::Task;
use crate::error::{Error, Result};
use crate::event::LayerName;
use crate::layers::{Claims, Feeder, Finished, Layer, Work};

/// The feeder's side of a load.
pub(super) struct Feed<'a, 'f> {
    pub(super) loader: &'a Loader<'a>,
    pub(super) contents: &'a dyn Contents,
    /// Blobs that were reported already.
    pub(super) quiet: &'a HashSet<Digest>,
    /// The number of the first layer.
    pub(super) first: usize,
    pub(super) feeder: &'a Feeder<'f>,
}

/// How often it is asked whether another process is done with a layer.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Layers that are left to do.
type Open<'a> = Vec<(&'a Layer, &'a Task)>;

impl Feed<'_, '_> {
    /// Sees to all layers, with so many threads that bring them.
    pub(super) fn all(&self, tasks: &[Task], threads: usize) -> Result<()> {
        let tasks: Vec<(Layer, &Task)> =
            tasks.iter().enumerate().map(|(number, task)| (self.layer(number, task), task)).collect();
        let mut open = Vec::new();
        for ((layer, task), presence) in tasks.iter().zip(self.presences(&tasks)?) {
            if !self.settled(layer, task, presence.as_ref())? {
                open.push((layer, *task));
            }
        }
        // The largest first: its unpacking takes longest, and nothing is left to do beside it at the end.
        open.sort_by_key(|(layer, _)| std::cmp::Reverse(layer.size));
        let threads = threads.min(open.len());
        let open = Mutex::new(VecDeque::from(open));
        if threads < 2 {
            return self.work_through(&open);
        }
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    if let Err(error) = self.work_through(&open) {
                        self.feeder.fail(error);
                    }
                });
            }
        });
        if self.feeder.stopped() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn work_through(&self, open: &Mutex<VecDeque<(&Layer, &Task)>>) -> Result<()> {
        let mut busy: Open<'_> = Vec::new();
        loop {
            // The lock is let go of before the work.
            let next = open.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((layer, task)) = next else { break };
            match self.try_claims(layer, task)? {
                Some(claims) => self.claimed(layer, task, claims)?,
                None => {
                    self.feeder.waiting(layer);
                    busy.push((layer, task));
                }
            }
        }
        for (layer, task) in busy {
            // Asked for again and again, since whoever has it may take hours, and another layer may fail before.
            let claims = loop {
                if self.feeder.stopped() {
                    return Err(Error::Cancelled);
                }
                match self.try_claims(layer, task)? {
                    Some(claims) => break claims,
                    None => thread::sleep(ASK_EVERY),
                }
            };
            self.claimed(layer, task, claims)?;
        }
        Ok(())
    }

    fn layer(&self, number: usize, task: &Task) -> Layer {
        let digest = match &task.descriptor {
            Some(descriptor) => Some(descriptor.digest.clone()),
            None => self.contents.stored(&task.member),
        };
        let name = match (&task.diff_id, &digest) {
            // A docker-archive's layers are known by what they are uncompressed.
            (Some(diff_id), None) => LayerName::Digest(diff_id.digest().clone()),
            (_, Some(digest)) => LayerName::Digest(digest.clone()),
            (None, None) => LayerName::Member(task.member.clone()),
        };
        Layer {
            index: self.first + number,
            name,
            digest,
            size: task.descriptor.as_ref().map(|descriptor| descriptor.size),
            media_type: task.descriptor.as_ref().map(|descriptor| descriptor.media_type.clone()),
            diff_id: task.diff_id.clone(),
        }
    }

    /// What the store has of each layer; nothing where not even its digest is known.
    fn presences(&self, tasks: &[(Layer, &Task)]) -> Result<Vec<Option<(Digest, Presence)>>> {
        let store = &self.loader.engine.store;
        let mut digests = Vec::with_capacity(tasks.len());
        for (layer, _) in tasks {
            let digest = match (&layer.digest, &layer.diff_id) {
                (Some(digest), _) => Some(digest.clone()),
                (None, Some(diff_id)) => store.blob_of_layer(diff_id)?,
                (None, None) => None,
            };
            digests.push(digest);
        }
        let known: Vec<(Digest, Option<DiffId>)> = digests
            .iter()
            .zip(tasks)
            .filter_map(|(digest, (layer, _))| Some((digest.clone()?, layer.diff_id.clone())))
            .collect();
        let mut found = store.lease_layers(&self.loader.session, &known)?.into_iter();
        Ok(digests
            .into_iter()
            .map(|digest| digest.and_then(|digest| Some((digest, found.next()?))))
            .collect())
    }

    /// Whether nothing is left to do for a layer.
    fn settled(&self, layer: &Layer, task: &Task, presence: Option<&(Digest, Presence)>) -> Result<bool> {
        if let Some((_, Presence { blob: None, tree: Some(_) })) = presence {
            return self.settled_without_blob(layer, task);
        }
        let Some((digest, Presence { blob: Some(blob), tree })) = presence else { return Ok(false) };
        if let (Some(expected), Some(actual)) = (&layer.diff_id, &blob.diff_id)
            && expected != actual
        {
            return Err(Error::DiffIdMismatch {
                layer: layer.name.to_string(),
                expected: expected.clone(),
                actual: actual.clone(),
            });
        }
        if let Some(expected) = layer.size.filter(|size| *size != blob.size) {
            let (digest, actual) = (digest.clone(), blob.size);
            return Err(layerstore_store::Error::SizeMismatch { digest, expected, actual }.into());
        }
        let verified = blob.diff_id.is_some();
        if task.unpack && (tree.is_none() || !verified) || needs_verifying(task) && !verified {
            return Ok(false);
        }
        let finished = Finished { digest: digest.clone(), size: blob.size, compression: None };
        self.feeder.already_exists(layer, finished, self.quiet.contains(digest));
        Ok(true)
    }

    /// The same for a layer of which the tree is here alone.
    fn settled_without_blob(&self, layer: &Layer, task: &Task) -> Result<bool> {
        let (Some(descriptor), Some(diff_id)) = (&task.descriptor, &task.diff_id) else { return Ok(false) };
        let Descriptor { digest, size, .. } = descriptor;
        if !self.contents.may_be_absent(digest, diff_id)? {
            return Ok(false);
        }
        let finished = Finished { digest: digest.clone(), size: *size, compression: None };
        self.feeder.already_exists(layer, finished, self.quiet.contains(digest));
        Ok(true)
    }

    fn try_claims(&self, layer: &Layer, task: &Task) -> Result<Option<Vec<Claim>>> {
        let store = &self.loader.engine.store;
        let mut claims = Vec::new();
        for key in keys(layer, task) {
            match store.try_claim(&key)? {
                Some(claim) => claims.push(claim),
                None => return Ok(None),
            }
        }
        Ok(Some(claims))
    }

    /// Does what is left to do for a layer that nobody else is at.
    fn claimed(&self, layer: &Layer, task: &Task, claims: Vec<Claim>) -> Result<()> {
        if self.feeder.stopped() {
            return Err(Error::Cancelled);
        }
        let presence = self.presences(&[(layer.clone(), task)])?.pop().flatten();
        if self.settled(layer, task, presence.as_ref())? {
            return Ok(());
        }
        let (blob, tree) = match presence {
            Some((digest, Presence { blob, tree })) => (blob.map(|blob| (digest, blob.size)), tree),
            None => (None, None),
        };
        let work = match (task.unpack, tree) {
            (false, _) if needs_verifying(task) => Work::Verify,
            (false, _) => Work::Keep,
            (true, Some(_)) => Work::Verify,
            (true, None) => Work::Unpack,
        };
        let claims = Claims::new(claims);
        if let Some((digest, size)) = blob {
            return self.feeder.reuse(layer.clone(), work, claims, digest, size);
        }
        self.contents.bring(&self.loader.session, self.feeder, layer.clone(), &task.member, work, claims)
    }
}

/// A docker-archive has no digests: nothing but a layer's content says that it is the one which the config means.
fn needs_verifying(task: &Task) -> bool {
    task.descriptor.is_none() && task.diff_id.is_some()
}

/// What has to be claimed for a layer, in the order in which it has to be.
fn keys(layer: &Layer, task: &Task) -> Vec<Key> {
    let tree = layer.diff_id.clone().filter(|_| task.unpack).map(Key::Layer);
    tree.into_iter().chain(layer.digest.clone().map(Key::Blob)).collect()
}
