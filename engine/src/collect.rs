//! Giving space back.

use std::collections::{HashMap, HashSet};

use layerstore_gc::{Cause, Kept, Plan, Policy, Reason};
use layerstore_oci::Digest;
use layerstore_store::{
    Discard, DiscardFate as Fate, Graph, LOCAL, NodeKind, Object, Partial, RootKind, Scan, Size, Store,
    UnixSeconds,
};

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::pull::KEEP_SECONDS;
use crate::remove::Removed;

/// What a collection took away, or would take away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Names that are gone, those first whose image was not used for the longest time.
    pub names: Vec<RemovedName>,
    /// Everything else that is gone.
    pub objects: Vec<CollectedObject>,
    /// Images that the policy was about and that stay, and why.
    pub kept: Vec<Kept>,
    /// Bytes that were to be freed, if there was a goal.
    pub wanted: Option<u64>,
}

/// A name that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedName {
    /// The name as people write it; the target's digest for an image without one.
    pub name: String,
    /// The image ID, or the target of what is no image.
    pub id: Digest,
    /// Why it went.
    pub reason: Reason,
    /// What went with it.
    pub freed: Size,
}

/// Something that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedObject {
    /// What it was.
    pub kind: CollectedKind,
    /// Its digest, ID, key or path.
    pub name: String,
    /// What it took.
    pub size: Size,
    /// Why it went, if it was an object with a row.
    pub cause: Option<Cause>,
}

/// What something was that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CollectedKind {
    /// A blob.
    Blob,
    /// The tree of a layer, or one that was written to.
    Tree,
    /// A tree that one stack of layers needed on top.
    Fixup,
    /// A snapshot of an image's stack.
    Snapshot,
    /// What a killed command left.
    DeadSession,
    /// The beginning of a blob.
    PartialDownload,
    /// What nobody knows.
    Unknown,
    /// What was forgotten before and not deleted yet.
    Trash,
}

impl CollectedKind {
    /// In words, as in `Deleted blob: …`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
            Self::Fixup => "fix-up",
            Self::Snapshot => "snapshot",
            Self::DeadSession => "leftovers of a command",
            Self::PartialDownload => "partial download",
            Self::Unknown => "unknown",
            Self::Trash => "trash",
        }
    }
}

impl Collected {
    /// What is freed altogether.
    pub fn freed(&self) -> Size {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// What went as `docker image prune` tells it: names, IDs, and chain IDs, topmost first.
    pub fn removed(&self) -> Vec<Removed> {
        let mut removed = Vec::new();
        let mut by_name: HashMap<String, Vec<&CollectedObject>> = HashMap::new();
        for object in &self.objects {
            if let Some(Cause::Name(stored)) = &object.cause {
                by_name.entry(layerstore_gc::familiar(stored)).or_default().push(object);
            }
        }
        // An image goes with the last of its names.
        for names in self.names.chunk_by(|a, b| a.id == b.id) {
            removed.extend(
                names.iter().filter_map(|name| crate::names::named(&name.name)).map(Removed::Untagged),
            );
            let gone: Vec<&CollectedObject> =
                names.iter().filter_map(|name| by_name.get(&name.name)).flatten().copied().collect();
            let id = names[0].id.to_string();
            if gone.iter().any(|object| object.kind == CollectedKind::Blob && object.name == id) {
                removed.push(Removed::Deleted(names[0].id.clone()));
            }
            removed.extend(gone.into_iter().filter_map(chain));
        }
        let rest = self.objects.iter().filter(|object| !matches!(object.cause, Some(Cause::Name(_))));
        removed.extend(rest.filter_map(chain));
        removed
    }
}

/// A stack of layers that is gone.
fn chain(object: &CollectedObject) -> Option<Removed> {
    let id = (object.kind == CollectedKind::Snapshot).then(|| object.name.parse().ok());
    id.flatten().map(Removed::Deleted)
}

impl Layerstore {
    /// What [`Layerstore::collect`] would take away now.
    ///
    /// # Errors
    ///
    /// Those of the store itself; `Corrupt` if the database refers to something that it does not hold.
    pub fn plan_collection(&self, policy: &Policy) -> Result<Collected> {
        self.plan_collection_after(policy, &[])
    }

    /// What [`Layerstore::collect`] would take away if the containers with these IDs were removed before.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::plan_collection`].
    pub fn plan_collection_after(&self, policy: &Policy, containers: &[String]) -> Result<Collected> {
        let (scan, (graph, removed)) = self.beside_scan(|store| {
            let mut graph = store.graph_to_collect(policy.interrupted)?;
            if policy.evict.is_some() {
                store.note_missing(&mut graph);
            }
            let removed = without(&mut graph, containers, store.clock().now());
            Ok((graph, removed))
        })?;
        let anyway = self.goes_anyway(&scan, policy.interrupted)?;
        Ok(foreseen(&graph, policy, &anyway, &removed))
    }

    /// What a collection takes away that has no rows.
    pub(crate) fn goes_anyway(&self, scan: &Scan, interrupted: bool) -> Result<Vec<CollectedObject>> {
        let partials = self.old_partials(interrupted)?;
        let unknown = self.store.judge_unknown(&scan.unknown, interrupted)?;
        Ok(partials.iter().map(|old| partial(old, scan)).chain(leftovers(scan, unknown)).collect())
    }

    /// Takes away everything that no name, container, mount or running command keeps, what killed commands left, what
    /// nobody knows, and what `policy` takes of the images that nobody uses.
    ///
    /// What interrupted pulls have fetched is kept for a day, unless the policy says otherwise. Others may go on
    /// meanwhile: nothing is locked for longer than some milliseconds, and what they claim stays.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::plan_collection`]; then nothing is taken away. `Unfinished` if something could not be deleted:
    /// all else is gone, and the error says what.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> layerstore::Result<()> {
    /// use layerstore::{Goal, Policy, Scope};
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let policy = Policy { scope: Scope::Unused, goal: Some(Goal::Free(10 << 30)), ..Policy::default() };
    /// println!("{} bytes", store.collect(&policy)?.freed().allocated);
    /// # Ok(())
    /// # }
    /// ```
    pub fn collect(&self, policy: &Policy) -> Result<Collected> {
        // Before anything is done, so that what cannot be read leaves all as it was.
        let partials = self.old_partials(policy.interrupted)?;
        let (scan, _) = self.beside_scan(|store| Ok(store.graph_to_collect(policy.interrupted)?))?;
        self.store.forget_stale_mounts()?;
        self.store.tidy_mount_points()?;
        if policy.interrupted {
            self.store.forget_lasting_leases()?;
        }
        let unknown = self.store.discard_unknown(&scan.unknown)?;
        self.store.recover_all()?;
        // No tree needs its blob from here on.
        self.store.settle_older_than(0)?;
        let mut graph = self.store.graph()?;
        if policy.evict.is_some() {
            self.store.note_missing(&mut graph);
        }
        let anyway = leftovers(&scan, unknown);
        let begun: Vec<_> = partials.iter().map(|old| partial(old, &scan)).collect();
        let plan = layerstore_gc::plan_beside(&graph, policy, bytes(&anyway).saturating_add(bytes(&begun)));
        let names: Vec<_> = plan.names.iter().map(|name| name.untag.clone()).collect();
        let victims: Vec<_> = plan.victims.iter().map(|planned| planned.victim.clone()).collect();
        let forgotten = self.store.forget(&names, &victims)?;
        let gone: Vec<Object> =
            forgotten.victims.iter().map(|index| victims[*index].object.clone()).collect();
        // From here on names and rows are gone: whoever asked is told of that, whatever else fails.
        let mut failed: Option<layerstore_store::Error> = None;
        let swept: HashSet<Object> = match self.store.sweep(&gone) {
            Ok(swept) => swept.into_iter().collect(),
            Err(error) => {
                failed = Some(error);
                gone.iter().filter(|object| !self.is_on_disk(object)).cloned().collect()
            }
        };
        let mut collected = told(
            &plan,
            |index| forgotten.names.binary_search(&index).is_ok(),
            |index| swept.contains(&victims[index].object),
        );
        for (old, object) in partials.iter().zip(begun) {
            match self.store.discard_partial(&old.digest) {
                Ok(true) => collected.objects.push(object),
                // Another command has gone on with it.
                Ok(false) => {}
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        collected.objects.extend(anyway);
        // What cannot be unlinked does not keep anything else from being done.
        let emptied = self.store.empty_trash().map(drop);
        if emptied.is_err() {
            collected.objects.retain(|object| object.kind != CollectedKind::Trash);
        }
        match failed.or(emptied.err()) {
            None => Ok(collected),
            Some(error) => {
                Err(Error::Unfinished { collected: Box::new(collected), source: Box::new(error.into()) })
            }
        }
    }

    fn is_on_disk(&self, object: &Object) -> bool {
        let layout = self.store.layout();
        let path = match object {
            Object::Blob(digest) => layout.blob(digest),
            Object::Tree(id) => layout.tree(id),
            Object::Snapshot { .. } => return false,
        };
        path.symlink_metadata().is_ok()
    }

    /// Scans on a thread of its own: it waits for the disk mostly.
    pub(crate) fn beside_scan<T>(&self, work: impl FnOnce(&Store) -> Result<T>) -> Result<(Scan, T)> {
        let (scan, done) = std::thread::scope(|scope| {
            let scan = scope.spawn(|| self.store.scan());
            let done = work(&self.store);
            (scan.join(), done)
        });
        match scan {
            Ok(scan) => Ok((scan?, done?)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Interrupted downloads that nobody went on with for a day, or all. All as well if every pull has ended with success:
    /// then nobody will go on with what is left, as when `gc` has kept a blob for a pull that another command was about to
    /// delete.
    fn old_partials(&self, all: bool) -> Result<Vec<Partial>> {
        let mut partials = self.store.partials()?;
        let all = all || !partials.is_empty() && !self.store.has_lasting_lease()?;
        let old = self.store.clock().now() - KEEP_SECONDS;
        // One whose blob has come another way is of no use.
        let here = |partial: &Partial| self.store.blob(&partial.digest).is_ok_and(|blob| blob.is_some());
        partials.retain(|partial| all || partial.modified <= old || here(partial));
        Ok(partials)
    }
}

/// What a policy would take away beside that which goes anyway, apart from what has gone already by then.
pub(crate) fn foreseen(
    graph: &Graph,
    policy: &Policy,
    anyway: &[CollectedObject],
    before: &HashSet<Object>,
) -> Collected {
    let mut plan = layerstore_gc::plan_beside(graph, policy, bytes(anyway));
    plan.victims.retain(|planned| !before.contains(&planned.victim.object));
    let mut collected = told(&plan, |_| true, |_| true);
    collected.objects.extend_from_slice(anyway);
    collected
}

/// Takes containers out of a graph. Returns what they alone have: it goes with them.
fn without(graph: &mut Graph, containers: &[String], now: UnixSeconds) -> HashSet<Object> {
    if containers.is_empty() {
        return HashSet::new();
    }
    let containers: HashSet<&String> = containers.iter().collect();
    // Until they are removed their images are in use.
    let is_one = |kind: &RootKind| matches!(kind, RootKind::Container { id, .. } if containers.contains(id));
    let roots = graph.roots.iter().filter(|root| is_one(&root.kind));
    let kept: HashSet<usize> = roots.flat_map(|root| root.keeps.iter().copied()).collect();
    for image in graph.images.iter_mut().filter(|image| kept.contains(&image.manifest)) {
        image.last_used_at = Some(now);
    }
    graph.roots.retain(|root| !is_one(&root.kind));
    let mut removed = HashSet::new();
    for id in containers {
        let snapshot = Object::Snapshot { owner: LOCAL.to_owned(), key: id.clone() };
        let trees = graph.find(&snapshot).into_iter().flat_map(|index| graph.children(index));
        let own = trees.map(|child| &graph.nodes[child]).filter(|node| node.kind == NodeKind::Written);
        removed.extend(own.map(|node| node.object.clone()));
        removed.insert(snapshot);
    }
    removed
}

/// A plan, as far as it was carried out.
fn told(plan: &Plan, name: impl Fn(usize) -> bool, victim: impl Fn(usize) -> bool) -> Collected {
    let names = plan.names.iter().enumerate().filter(|(index, _)| name(*index));
    let (objects, stay): (Vec<_>, Vec<_>) =
        plan.victims.iter().enumerate().partition(|(index, _)| victim(*index));
    let mut held: HashMap<&str, Size> = HashMap::new();
    for (_, planned) in stay {
        if let Cause::Name(name) = &planned.cause {
            *held.entry(name).or_default() += planned.size;
        }
    }
    Collected {
        names: names
            .map(|(_, planned)| RemovedName {
                name: layerstore_gc::familiar(&planned.untag.name),
                id: planned.id.clone(),
                reason: planned.reason.clone(),
                freed: planned.freed - held.get(planned.untag.name.as_str()).copied().unwrap_or_default(),
            })
            .collect(),
        objects: objects
            .into_iter()
            .map(|(_, planned)| CollectedObject {
                kind: match planned.kind {
                    NodeKind::Blob => CollectedKind::Blob,
                    NodeKind::Layer | NodeKind::Written => CollectedKind::Tree,
                    NodeKind::Fixup => CollectedKind::Fixup,
                    NodeKind::Snapshot => CollectedKind::Snapshot,
                },
                name: planned.victim.object.to_string(),
                size: planned.size,
                cause: Some(planned.cause.clone()),
            })
            .collect(),
        kept: plan.kept.clone(),
        wanted: plan.goal.map(|(wanted, _)| wanted),
    }
}

/// What a scan found that goes.
fn leftovers(scan: &Scan, unknown: Vec<Discard>) -> Vec<CollectedObject> {
    let object = |kind, name: String, size| CollectedObject { kind, name, size, cause: None };
    let dead = scan.ingests.iter().filter(|ingest| !ingest.alive);
    let mut gone: Vec<CollectedObject> = dead
        .map(|ingest| {
            object(CollectedKind::DeadSession, ingest.name.to_string_lossy().into_owned(), ingest.size)
        })
        .collect();
    let trashed = unknown.into_iter().filter(|discard| matches!(discard.fate, Fate::Trashed(_)));
    gone.extend(trashed.map(|Discard { unknown, .. }| {
        object(CollectedKind::Unknown, unknown.path.to_string_lossy().into_owned(), unknown.size)
    }));
    if scan.trash != Size::default() {
        gone.push(object(CollectedKind::Trash, "what was forgotten before".to_owned(), scan.trash));
    }
    gone
}

/// The blocks of all that goes.
pub(crate) fn bytes(objects: &[CollectedObject]) -> u64 {
    objects.iter().map(|object| object.size.allocated).sum()
}

fn partial(partial: &Partial, scan: &Scan) -> CollectedObject {
    let size = scan.partials.iter().find(|(digest, _)| *digest == partial.digest).map(|(_, size)| *size);
    let name = partial.digest.to_string();
    let kind = CollectedKind::PartialDownload;
    CollectedObject { kind, name, size: size.unwrap_or_default(), cause: None }
}
