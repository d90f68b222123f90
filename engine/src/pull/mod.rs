//! Pulling images from registries.

pub(crate) mod remote;

use layerstore_archive::{ArchivedImage, Content};
use layerstore_oci::{
    Descriptor, DiffId, Digest, Document, ErrorKind, Index, MAX_DOCUMENT_BYTES, Platform, Reference,
    media_type,
};
use layerstore_registry::{Client, FetchedManifest, Repository, Selector};
use layerstore_store::{LOCAL, Session};

use self::remote::{Remote, Watcher};
use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::{Event, Listener, PullPlan};
use crate::load::plan::Plan;
use crate::load::{LoadOptions, Loader};
use crate::names::refuse_reserved;
use crate::policy::UnpackPolicy;

/// How long what an interrupted pull has fetched is kept for the next one.
pub(crate) const KEEP_SECONDS: i64 = 24 * 60 * 60;
/// Layers that are downloaded at the same time.
pub(crate) const DOWNLOADS: usize = 4;

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// Always: a tag may stand for another image by now.
    #[default]
    Always,
    /// Only if the image is not in the store.
    Missing,
    /// Always, but if there is no answer, the image in the store is good enough.
    Newer,
}

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform to take of an image for several; none is this machine's.
    pub platform: Option<Platform>,
    /// Take all platforms, and unpack the one above.
    pub all_platforms: bool,
    /// Keep the layers as they are, and unpack them at the first mount. Those that were evicted come back: without this, an
    /// image whose trees are here is up to date.
    pub keep_packed: bool,
    /// When to ask the registry.
    pub when: When,
    /// Try it even if there seems to be too little space.
    pub force: bool,
    /// Layers that are downloaded at the same time; none is the default.
    pub downloads: Option<usize>,
    /// How to unpack; none says as the store's settings say.
    pub policy: Option<UnpackPolicy>,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullReport {
    /// The name.
    pub reference: Reference,
    /// The manifest or index that it stands for.
    pub target: Digest,
    /// The image ID, or the target of an artifact that is no image.
    pub id: Digest,
    /// Whether the store has anything now that it did not have before.
    pub changed: bool,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Layerstore {
    /// Pulls the image that `reference` names.
    ///
    /// Success says that the image is in the store, unpacked if asked for, and durable. After a failure, what has been
    /// fetched is kept for a day, for the next attempt; no name shows it.
    ///
    /// # Errors
    ///
    /// `NotFound` if the registry has no such image; `Unauthorized`; `Unavailable` if it does not answer; `Corrupt`
    /// for content that is not what its digest says; `NoSpace`. Those of [`Layerstore::load`] for its layers.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use layerstore::{Layerstore, PullOptions};
    ///
    /// let store = Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let client = layerstore::registry::Client::new(Default::default())?;
    /// let report = store.pull(&client, &"alpine:3".parse()?, &PullOptions::default(), &|_| {})?;
    /// println!("{}", report.id);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pull(
        &self,
        client: &Client,
        reference: &Reference,
        options: &PullOptions,
        listener: &Listener<'_>,
    ) -> Result<PullReport> {
        refuse_reserved(reference)?;
        if !options.keep_packed {
            self.check_flavour()?;
        }
        let pull = Pull { engine: self, reference, options, listener };
        let name = reference.to_string();
        let here = self.store.reference(LOCAL, &name)?.map(|row| row.target);
        // What a digest stands for does not change.
        let settled = options.when == When::Missing || reference.digest().is_some();
        if settled && let Some(report) = pull.present(here.as_ref())? {
            self.store.note_use(&report.target)?;
            return Ok(report);
        }
        let watcher = Watcher::new(listener, &self.cancel);
        let repository = client.repository(reference, &watcher)?;
        match pull.from(&repository, here.as_ref()) {
            Err(error) if options.when == When::Newer && error.kind() == ErrorKind::Unavailable => {
                let Some(mut report) = pull.present(here.as_ref())? else { return Err(error) };
                self.store.note_use(&report.target)?;
                report.notes.push(format!("the image in the store is used: {error}"));
                Ok(report)
            }
            done => done,
        }
    }
}

struct Pull<'a> {
    engine: &'a Layerstore,
    reference: &'a Reference,
    options: &'a PullOptions,
    listener: &'a Listener<'a>,
}

impl Pull<'_> {
    fn from(&self, repository: &Repository<'_>, here: Option<&Digest>) -> Result<PullReport> {
        let mut notes = Vec::new();
        let fetched = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), tag) => {
                let fetched = repository.manifest(Selector::Digest(digest))?;
                if let Some(tag) = tag
                    && let Ok(Some(now)) = repository.resolve(tag)
                    && now != *digest
                {
                    notes
                        .push(format!("the tag `{tag}` stands for {now} by now; pulled the digest as asked"));
                }
                fetched
            }
            (None, tag) => {
                let tag = tag.unwrap_or_default();
                let digest = match here {
                    Some(_) => repository.resolve(tag)?,
                    None => None,
                };
                if digest.is_some()
                    && digest.as_ref() == here
                    && let Some(report) = self.present(here)?
                {
                    return self.up_to_date(report);
                }
                match &digest {
                    Some(digest) => repository.manifest(Selector::Digest(digest))?,
                    None => repository.manifest(Selector::Tag(tag))?,
                }
            }
        };
        if here == Some(&fetched.digest)
            && let Some(report) = self.present(here)?
        {
            return self.up_to_date(report);
        }
        let mut report = self.engine.tidily(|| self.fetch(repository, &fetched, here))?;
        notes.append(&mut report.notes);
        Ok(PullReport { notes, ..report })
    }

    /// The registry has just said that nothing has changed.
    fn up_to_date(&self, report: PullReport) -> Result<PullReport> {
        self.engine.store.note_pull(LOCAL, &self.reference.to_string(), &report.target)?;
        Ok(report)
    }

    fn fetch(
        &self,
        repository: &Repository<'_>,
        fetched: &FetchedManifest,
        here: Option<&Digest>,
    ) -> Result<PullReport> {
        let engine = self.engine;
        let load = LoadOptions {
            platform: self.options.platform.clone().filter(|_| !self.options.all_platforms),
            unpack: !self.options.keep_packed,
            policy: None,
        };
        let policy = self.options.policy.map_or_else(|| engine.unpack_policy(), Ok)?;
        let mut session = engine.store.session(LOCAL)?;
        session.outlast(&format!("pull {}", self.reference), KEEP_SECONDS)?;
        let prefer = self.options.all_platforms.then(|| self.platform());
        let loader =
            Loader { engine, session, options: &load, policy, listener: self.listener, prefer, pulled: true };
        let remote = Remote { pull: self, store: &engine.store, repository, top: fetched };
        // Registries say many things; what a document is shows in it.
        let known = media_type::is_manifest(&fetched.media_type) || media_type::is_index(&fetched.media_type);
        let media_type = if known { fetched.media_type.as_str() } else { "" };
        let image = ArchivedImage {
            names: vec![self.reference.to_string()],
            tags: Vec::new(),
            content: Content::Oci(Descriptor::new(
                media_type,
                fetched.digest.clone(),
                fetched.bytes.len() as u64,
            )),
        };
        let mut plan = loader.plan(&remote, &[image])?;
        self.announce(&loader.session, &plan)?;
        let mut new = Vec::new();
        let downloads = self.options.downloads.unwrap_or(DOWNLOADS).max(1);
        let none = std::collections::HashSet::new();
        let finished = loader.bring(&remote, &plan, &none, 0, downloads, &mut new)?;
        let foreign = self.foreign_platform(&plan);
        let report = loader.commit(&mut plan, &finished, &mut new)?;
        loader.session.complete()?;
        let mut image = report.images.into_iter().next().ok_or(Error::Cancelled)?;
        image.notes.extend(foreign);
        let changed = !new.is_empty() || here != Some(&image.target);
        let reference = self.reference.clone();
        Ok(PullReport { reference, target: image.target, id: image.id, changed, notes: image.notes })
    }

    /// Says that an image which is for one platform only is not for this machine's, if nobody asked for it.
    fn foreign_platform(&self, plan: &Plan) -> Option<String> {
        let image = plan.images.first()?;
        let platform: Platform = image.summary.platform.parse().ok()?;
        let asked = self.options.platform.is_some() || self.options.all_platforms;
        (!asked && !Platform::host().runs(&platform))
            .then(|| format!("the image is for {platform}, and this machine is {}", Platform::host()))
    }

    /// Tells what is to be done, and refuses what will not fit.
    fn announce(&self, session: &Session, plan: &Plan) -> Result<()> {
        let store = &self.engine.store;
        let wanted: Vec<_> = plan
            .tasks
            .iter()
            .filter_map(|task| Some((task.descriptor.as_ref()?.digest.clone(), task.diff_id.clone())))
            .collect();
        let mut pull = PullPlan { available: store.space()?.available, ..PullPlan::default() };
        for (task, presence) in plan.tasks.iter().zip(store.lease_layers(session, &wanted)?) {
            let Some(descriptor) = &task.descriptor else { continue };
            pull.blobs += 1;
            let evicted = match &task.diff_id {
                Some(diff_id) if presence.blob.is_none() => {
                    self.may_be_absent(&descriptor.digest, diff_id)?
                }
                _ => false,
            };
            if presence.blob.is_some() || evicted {
                pull.reuse = pull.reuse.saturating_add(descriptor.size);
            } else {
                let there = store.partial_size(&descriptor.digest).min(descriptor.size);
                pull.missing += usize::from(there < descriptor.size);
                pull.fetch = pull.fetch.saturating_add(descriptor.size - there);
                pull.resume = pull.resume.saturating_add(there);
            }
            if task.unpack && presence.tree.is_none() {
                pull.unpack = pull.unpack.saturating_add(descriptor.size);
            }
        }
        (self.listener)(Event::Plan(pull));
        if pull.needed() > pull.available && !self.options.force {
            let root = store.layout().root().to_owned();
            return Err(Error::NoRoom { root, needed: pull.needed(), available: pull.available });
        }
        Ok(())
    }

    /// The report for `target`, if all that is wanted of it is in the store and nothing is left to do.
    fn present(&self, target: Option<&Digest>) -> Result<Option<PullReport>> {
        let Some(target) = target else { return Ok(None) };
        let session = self.engine.store.session(LOCAL)?;
        let Some(id) = self.complete(&session, target, !self.options.keep_packed, 0)? else {
            return Ok(None);
        };
        Ok(Some(PullReport {
            reference: self.reference.clone(),
            target: target.clone(),
            id,
            changed: false,
            notes: Vec::new(),
        }))
    }

    /// The image ID of a manifest or index of which the store has everything that is wanted.
    fn complete(
        &self,
        session: &Session,
        digest: &Digest,
        unpack: bool,
        depth: usize,
    ) -> Result<Option<Digest>> {
        const MAX_DEPTH: usize = 8;
        let store = &self.engine.store;
        let Ok(bytes) = store.read_blob(digest, MAX_DOCUMENT_BYTES) else { return Ok(None) };
        let Ok(document) = Document::parse(&bytes, None) else { return Ok(None) };
        let manifest = match document {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) if depth >= MAX_DEPTH => return Ok(None),
            Document::Index(index) => {
                let children = self.wanted(&index)?;
                let platforms = children.iter().map(|child| child.platform.as_ref());
                let shown = self.platform().select(platforms).unwrap_or(0);
                let mut shown_id = None;
                for (number, child) in children.iter().enumerate() {
                    // Of several platforms only one is unpacked.
                    let unpack = unpack && (!self.options.all_platforms || number == shown);
                    let Some(id) = self.complete(session, &child.digest, unpack, depth + 1)? else {
                        return Ok(None);
                    };
                    if number == shown {
                        shown_id = Some(id);
                    }
                }
                return Ok(shown_id);
            }
        };
        // An artifact has layers of its own kind.
        let layers = match store.image_info(digest)? {
            Some(_) => store.layers(digest)?,
            None => Vec::new(),
        };
        let is_image =
            layers.len() == manifest.layers.len() && media_type::is_config(&manifest.config.media_type);
        let mut wanted = vec![(manifest.config.digest.clone(), None)];
        if is_image {
            // A config is small enough to look at all of it.
            let Ok(config) = self.engine.config(&manifest.config.digest) else { return Ok(None) };
            if let Some(platform) =
                self.options.platform.as_ref().filter(|_| depth == 0 && !self.options.all_platforms)
                && platform.select([config.platform.as_ref()]).is_none()
            {
                return Ok(None);
            }
            wanted.extend(layers.iter().map(|layer| (layer.blob.clone(), Some(layer.diff_id.clone()))));
        } else {
            wanted.extend(manifest.layers.iter().map(|layer| (layer.digest.clone(), None)));
        }
        let present = store.lease_layers(session, &wanted)?;
        for (number, (presence, (digest, diff_id))) in present.iter().zip(&wanted).enumerate() {
            let unpack = unpack && is_image && number > 0;
            let evicted = |diff_id| self.may_be_absent(digest, diff_id);
            let blob = presence.blob.is_some() || diff_id.as_ref().map_or(Ok(false), evicted)?;
            if !blob || (unpack && presence.tree.is_none()) {
                return Ok(None);
            }
        }
        Ok(Some(if is_image { manifest.config.digest } else { digest.clone() }))
    }

    /// Whether a layer that the store has no blob of stays as it is: a pull does not undo an eviction, unless it is told to
    /// get the layers as they are in the registry.
    fn may_be_absent(&self, blob: &Digest, diff_id: &DiffId) -> Result<bool> {
        Ok(!self.options.keep_packed && self.engine.store.is_evicted(blob, diff_id)?)
    }

    fn platform(&self) -> Platform {
        self.options.platform.clone().unwrap_or_else(Platform::host)
    }

    /// The manifests of an index that are wanted: the one for the platform, else those that do not say what they are
    /// for; or all.
    fn wanted(&self, index: &Index) -> Result<Vec<Descriptor>> {
        if self.options.all_platforms {
            return Ok(index.manifests.clone());
        }
        let wanted = self.platform();
        let platforms = || index.manifests.iter().map(|child| child.platform.as_ref());
        if let Some(number) = wanted.select(platforms()) {
            return Ok(vec![index.manifests[number].clone()]);
        }
        let silent: Vec<Descriptor> =
            index.manifests.iter().filter(|child| child.platform.is_none()).cloned().collect();
        if silent.is_empty() {
            let present =
                platforms().flatten().filter(|platform| platform.os != "unknown").cloned().collect();
            return Err(Error::NoPlatform { wanted: wanted.into(), present });
        }
        Ok(silent)
    }
}
