//! Layers whose blobs were evicted are fetched again before their image leaves the store.
//!
//! Their trees are here, and the repositories of names that were pulled had the blobs. What comes is verified by its
//! digest and, as it is uncompressed here as well, by its diff ID.

use std::collections::{HashMap, HashSet};

use layerstore_archive::Members;
use layerstore_oci::{Descriptor, DiffId, Digest, ErrorKind, Reference};
use layerstore_registry::{Client, Error as RegistryError, Repository};
use layerstore_store::Session;

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::{Event, LayerState, Listener};
use crate::layers::{Claims, Feeder, Layer, Work};
use crate::load::contents::Contents;
use crate::load::plan::{Plan, Task};
use crate::load::{LoadOptions, Loader};
use crate::names::named;
use crate::parts::{Foreign, Parts, Wanted};
use crate::policy::UnpackPolicy;
use crate::pull::DOWNLOADS;
use crate::pull::remote::{Source, Watcher};

/// Who can fetch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refetch<'a> {
    /// Without one, nothing can be fetched.
    pub(crate) client: Option<&'a Client>,
    /// Where the image is pushed to: what is there need not be fetched for it.
    pub(crate) destination: Option<&'a Repository<'a>>,
}

impl Layerstore {
    /// The names of the registries that [`Layerstore::push`] and [`Layerstore::save`] would ask for layers of `images`
    /// that were evicted. None where all is here, or nobody is known who has them.
    ///
    /// # Errors
    ///
    /// Only those of the store itself: an image that is not there has no such names.
    pub fn evicted_sources(&self, images: &[&str]) -> Result<Vec<Reference>> {
        let mut sources: Vec<Reference> = Vec::new();
        for name in images {
            let found = match self.find(name) {
                Ok(found) => found,
                Err(error @ Error::Store(_)) => return Err(error),
                Err(_) => continue,
            };
            let wanted = Wanted { platform: None, id: None, foreign: Foreign::Left, done: "fetched" };
            let Ok(parts) = self.everything(&found.target, wanted) else { continue };
            for digest in self.absent(&parts)?.keys() {
                for name in self.sources(digest)? {
                    if !sources.contains(&name) {
                        sources.push(name);
                    }
                }
            }
        }
        Ok(sources)
    }

    /// Fetches the layers among `parts` of the image `name` whose blobs were evicted, and puts them under the lease of
    /// `session`. `numbers` are those under which the layers are told of. Returns what may stay away, since it is at the
    /// destination.
    pub(crate) fn fetch_evicted(
        &self,
        session: Session,
        (name, parts): (&str, &Parts),
        refetch: Refetch<'_>,
        numbers: &HashMap<&Digest, usize>,
        listener: &Listener<'_>,
    ) -> Result<(Session, HashSet<Digest>)> {
        let mut absent = self.absent(parts)?;
        let mut elsewhere = HashSet::new();
        if let Some(destination) = refetch.destination {
            for digest in absent.keys() {
                if is_there(destination, digest)? {
                    elsewhere.insert(digest.clone());
                }
            }
        }
        absent.retain(|digest, _| !elsewhere.contains(digest));
        if absent.is_empty() {
            return Ok((session, elsewhere));
        }
        match self.fetch_absent(session, parts, &absent, refetch, numbers, listener) {
            Ok(session) => Ok((session, elsewhere)),
            Err(error @ Error::Cancelled) => Err(error),
            Err(error) => {
                let mut digests: Vec<Digest> = self.absent(parts)?.into_keys().collect();
                digests.retain(|digest| !elsewhere.contains(digest));
                digests.sort();
                if digests.is_empty() {
                    return Err(error);
                }
                // Only that nobody is known says nothing more.
                let source = (!matches!(error, Error::Evicted { .. })).then(|| Box::new(error));
                Err(Error::Evicted { name: name.to_owned(), digests, source })
            }
        }
    }

    fn fetch_absent(
        &self,
        session: Session,
        parts: &Parts,
        absent: &HashMap<Digest, DiffId>,
        refetch: Refetch<'_>,
        numbers: &HashMap<&Digest, usize>,
        listener: &Listener<'_>,
    ) -> Result<Session> {
        let tasks: Vec<Task> = parts
            .blobs
            .iter()
            .filter_map(|blob| {
                Some(Task {
                    descriptor: Some(blob.clone()),
                    member: String::new(),
                    diff_id: Some(absent.get(&blob.digest)?.clone()),
                    // The tree is here nearly always; then the diff ID is verified only.
                    unpack: true,
                })
            })
            .collect();
        // Loaders number layers by themselves.
        let number_of = |task: usize| {
            let digest = &tasks.get(task)?.descriptor.as_ref()?.digest;
            numbers.get(digest).copied()
        };
        // What is done with them afterwards is told by whoever does it.
        let listener = |event| match event {
            Event::Layer { index, name, state: state @ LayerState::Downloading { .. } } => {
                if let Some(index) = number_of(index) {
                    listener(Event::Layer { index, name, state });
                }
            }
            Event::Downloaded { index, done, total } => {
                if let Some(index) = number_of(index) {
                    listener(Event::Downloaded { index, done, total });
                }
            }
            event @ Event::Note(_) => listener(event),
            _ => {}
        };
        let watcher = Watcher::new(&listener, &self.cancel);
        let from = self.repositories(absent.keys(), refetch.client, &watcher)?;
        let contents = Sources { engine: self, listener: &listener, from };
        let options = LoadOptions::default();
        let policy = self.policy_for(absent)?;
        let loader = Loader {
            engine: self,
            session,
            options: &options,
            policy,
            listener: &listener,
            prefer: None,
            pulled: false,
        };
        let mut plan = Plan::default();
        plan.tasks.clone_from(&tasks);
        loader.bring(&contents, &plan, &HashSet::new(), 0, DOWNLOADS, &mut Vec::new())?;
        Ok(loader.session)
    }

    /// The layers of the images among `parts` that the store has no blobs of.
    fn absent(&self, parts: &Parts) -> Result<HashMap<Digest, DiffId>> {
        let mut absent = HashMap::new();
        for image in &parts.images {
            absent.extend(self.store.absent_layers(&image.manifest)?);
        }
        let wanted: HashSet<&Digest> = parts.blobs.iter().map(|blob: &Descriptor| &blob.digest).collect();
        absent.retain(|digest, _| wanted.contains(digest));
        Ok(absent)
    }

    /// Limits hold for what is unpacked, not for what is already.
    fn policy_for(&self, layers: &HashMap<Digest, DiffId>) -> Result<UnpackPolicy> {
        let mut policy = self.unpack_policy()?;
        for (blob, diff_id) in layers {
            if !self.store.is_evicted(blob, diff_id)? {
                return Ok(policy);
            }
        }
        (policy.limits.ratio, policy.limits.output_bytes) = (u64::MAX, u64::MAX);
        Ok(policy)
    }

    fn sources(&self, layer: &Digest) -> Result<Vec<Reference>> {
        let names = self.store.pulled_names_with(layer)?;
        Ok(names.iter().filter_map(|name| named(name)).collect())
    }

    /// For each layer the repositories to ask, in this order. A layer that nobody is known to have is an error.
    fn repositories<'a>(
        &self,
        layers: impl Iterator<Item = &'a Digest>,
        client: Option<&Client>,
        watcher: &'a Watcher<'a>,
    ) -> Result<HashMap<Digest, Vec<Repository<'a>>>> {
        let nobody = || Error::Evicted { name: String::new(), digests: Vec::new(), source: None };
        let mut known: HashMap<String, Repository<'a>> = HashMap::new();
        let mut all = HashMap::new();
        for layer in layers {
            let mut from = Vec::new();
            let mut seen = HashSet::new();
            for name in self.sources(layer)? {
                let repository = name.repository().to_owned();
                if !seen.insert(repository.clone()) {
                    continue;
                }
                if !known.contains_key(&repository) {
                    let opened = client.ok_or_else(nobody)?.repository(&name, watcher)?;
                    known.insert(repository.clone(), opened);
                }
                from.extend(known.get(&repository).cloned());
            }
            if from.is_empty() {
                return Err(nobody());
            }
            all.insert(layer.clone(), from);
        }
        Ok(all)
    }
}

/// Whether a repository has a blob. One that does not answer this question may still take it.
fn is_there(repository: &Repository<'_>, digest: &Digest) -> Result<bool> {
    match repository.has_blob(digest) {
        Ok(there) => Ok(there),
        Err(RegistryError::Status { .. } | RegistryError::Denied { .. } | RegistryError::Redirect { .. }) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Repositories as the place that single layers come from.
struct Sources<'a> {
    engine: &'a Layerstore,
    listener: &'a Listener<'a>,
    from: HashMap<Digest, Vec<Repository<'a>>>,
}

impl Members for Sources<'_> {}

impl Contents for Sources<'_> {
    fn bring(
        &self,
        session: &Session,
        feeder: &Feeder<'_>,
        layer: Layer,
        _member: &str,
        work: Work,
        claims: Claims,
    ) -> Result<()> {
        let repositories = layer.digest.as_ref().and_then(|digest| self.from.get(digest));
        let mut repositories = repositories.into_iter().flatten().peekable();
        while let Some(repository) = repositories.next() {
            let source = Source { engine: self.engine, listener: self.listener, repository };
            match source.bring(session, feeder, &layer, work, &claims) {
                // Another may have it.
                Err(Error::Registry(error)) if repositories.peek().is_some() => {
                    if error.kind() != ErrorKind::NotFound {
                        (self.listener)(Event::Note(error.to_string()));
                    }
                }
                done => return done,
            }
        }
        Err(Error::Cancelled)
    }
}
