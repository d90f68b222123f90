//! Which images go because nobody uses them, and in which order.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use layerstore_oci::{Digest, NamePattern, Reference};
use layerstore_store::{Graph, NameRoot, RootKind, UnixSeconds};

use crate::count::Counts;
use crate::group::{Group, User, groups, is_digest, is_local, users};

/// Which images a collection may take away, besides what nothing keeps. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which images it is about.
    pub scope: Scope,
    /// Only names that fit one of these, if there are any.
    pub names: Vec<NamePattern>,
    /// Only images that were built before this moment, according to their configs.
    pub until: Option<UnixSeconds>,
    /// Only images with these labels, or without them.
    pub labels: Vec<LabelFilter>,
    /// Only images that were not used since this moment.
    pub unused_since: Option<UnixSeconds>,
    /// Not the newest names of each repository, so many.
    pub keep_last: Option<usize>,
    /// Not names that fit one of these.
    pub protect: Vec<NamePattern>,
    /// No more than needed for this, those first that were not used for the longest time.
    pub goal: Option<Goal>,
    /// Images stay, and only one half of what they take goes.
    pub evict: Option<Evict>,
    /// What interrupted pulls have fetched goes as well.
    pub interrupted: bool,
}

/// Which images a policy is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// None: only what nothing keeps goes.
    #[default]
    Garbage,
    /// Images without a name that nothing uses.
    Dangling,
    /// All images that nothing uses.
    Unused,
}

/// A condition on an image's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// The label.
    pub key: String,
    /// Its value, if that matters.
    pub value: Option<String>,
    /// Whether the image must not have it.
    pub negated: bool,
}

/// How much is to be achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// So many bytes are to be freed.
    Free(u64),
    /// Blobs, the trees of layers and fix-ups are to take no more than so many bytes.
    KeepStorage(u64),
}

/// What goes of an image that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evict {
    /// Its trees. They are unpacked again when they are needed.
    Trees,
    /// The blobs of its layers. They are fetched again when they are needed.
    Blobs,
}

/// Why a name goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The image has no name, and nothing uses it.
    Dangling,
    /// Nothing uses the image, since this moment at the latest.
    Unused {
        /// When it was last used.
        since: UnixSeconds,
    },
}

/// Why an image stays that nothing forbids to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stays {
    /// A container was made from it.
    Container(String),
    /// It is mounted there.
    Mounted(PathBuf),
    /// A command needs it, or one that was interrupted.
    Leased,
    /// A snapshot is above its layers.
    Snapshot {
        /// Who created that.
        owner: String,
        /// Its key.
        key: String,
    },
    /// This name is pinned.
    Pinned(String),
    /// This name is protected by this pattern.
    Protected(String, NamePattern),
    /// This name is among the newest of its repository.
    AmongLast(String),
    /// This name does not fit any of the patterns.
    NotNamed(String),
    /// A name of it belongs to this owner.
    Owner(String),
    /// It was used then.
    UsedAt(UnixSeconds),
    /// It was built then, or does not say when.
    BuiltAt(Option<UnixSeconds>),
    /// Its labels are not those that were asked for.
    Labels,
    /// Enough goes without it.
    Enough,
    /// Some of its layers are not here as blobs, so that they could not be unpacked again.
    NoBlobs,
    /// Some of its layers are not unpacked.
    NoTrees,
    /// It was not pulled, so that nobody knows where to fetch it again.
    NotPulled,
    /// Layers of it were evicted that other images need, and this name tells where to fetch them.
    Source(String),
}

/// What a policy says of one group of names.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) group: Group,
    /// Indices of the roots that go, and why.
    pub(crate) names: Vec<(usize, Reason)>,
    /// Why the others stay.
    pub(crate) stays: Vec<Stays>,
    pub(crate) last_use: UnixSeconds,
}

/// What `policy` says of all images that it is about, those first that were not used for the longest time.
pub(crate) fn judge(graph: &Graph, policy: &Policy) -> Vec<Verdict> {
    if policy.scope == Scope::Garbage {
        return Vec::new();
    }
    let users = users(graph);
    let groups = groups(graph);
    let last = policy.keep_last.map(|count| newest(graph, &groups, count)).unwrap_or_default();
    let mut verdicts = Vec::new();
    for group in groups {
        if policy.scope == Scope::Dangling && !group.is_dangling(graph) {
            continue;
        }
        let last_use = group.last_use(graph);
        let dangling = group.is_dangling(graph);
        let (mut names, mut stays) = (Vec::new(), Vec::new());
        if let Some(reason) = whole(graph, policy, &users, &group, last_use) {
            stays.push(reason);
        } else {
            for (root, name) in group.names(graph) {
                match one(graph, policy, &group, root, name, &last) {
                    Some(reason) => stays.push(reason),
                    None if dangling => names.push((root, Reason::Dangling)),
                    None => names.push((root, Reason::Unused { since: last_use })),
                }
            }
        }
        verdicts.push(Verdict { group, names, stays, last_use });
    }
    if policy.evict.is_none() {
        keep_sources(graph, &mut verdicts);
    }
    verdicts.sort_by_key(|verdict| (verdict.last_use, verdict.group.target));
    verdicts
}

/// Keeps the names that tell where evicted layers of images that stay can be fetched again.
fn keep_sources(graph: &Graph, verdicts: &mut [Verdict]) {
    let evicted = |image: usize| {
        let layers = graph.images[image].layers.iter();
        layers.filter(|layer| layer.blob.is_none()).filter_map(|layer| layer.tree)
    };
    if (0..graph.images.len()).all(|image| evicted(image).next().is_none()) {
        return;
    }
    let mut counts = Counts::new(graph);
    for verdict in verdicts.iter().filter(|verdict| verdict.names.len() == verdict.group.names.len()) {
        counts.release(verdict.names.iter().map(|_| verdict.group.target));
    }
    let staying = (0..graph.images.len()).filter(|image| counts.is_kept(graph.images[*image].manifest));
    let needed: HashSet<usize> = staying.flat_map(evicted).collect();
    for verdict in verdicts {
        if !verdict.group.images.iter().flat_map(|image| evicted(*image)).any(|tree| needed.contains(&tree)) {
            continue;
        }
        let Verdict { group, names, stays, .. } = verdict;
        let pulled = |root: usize| match &graph.roots[root].kind {
            RootKind::Name(name) if name.pulled_at.is_some() => Some(familiar(&name.name)),
            _ => None,
        };
        let gone: HashSet<usize> = names.iter().map(|(root, _)| *root).collect();
        if group.names.iter().any(|root| !gone.contains(root) && pulled(*root).is_some()) {
            continue;
        }
        names.retain(|(root, _)| match pulled(*root) {
            Some(name) => {
                stays.push(Stays::Source(name));
                false
            }
            None => true,
        });
    }
}

/// Why all names of a group stay.
fn whole(
    graph: &Graph,
    policy: &Policy,
    users: &[Vec<User>],
    group: &Group,
    last_use: UnixSeconds,
) -> Option<Stays> {
    // Who uses an image uses its trees, not its blobs.
    let mut users = group.images.iter().flat_map(|image| &users[*image]);
    if let Some(user) = users.next().filter(|_| policy.evict != Some(Evict::Blobs)) {
        return Some(match user {
            User::Container(name) => Stays::Container(name.clone()),
            User::Mount(target) => Stays::Mounted(target.clone()),
            User::Lease(_) => Stays::Leased,
            User::Snapshot { owner, key } => Stays::Snapshot { owner: owner.clone(), key: key.clone() },
        });
    }
    if policy.unused_since.is_some_and(|moment| last_use >= moment) {
        return Some(Stays::UsedAt(last_use));
    }
    let images = || group.images.iter().map(|image| &graph.images[*image]);
    if let Some(moment) = policy.until {
        // What does not say when it was built is not older than anything, unless another platform says it. Attestations
        // are no platform.
        let built = images().filter(|image| image.platform != "unknown/unknown");
        let newest = built.filter_map(|image| image.created).max();
        if newest.is_none_or(|created| created >= moment) {
            return Some(Stays::BuiltAt(newest));
        }
    }
    if policy.labels.is_empty() {
        return None;
    }
    let labels: Vec<Labels> =
        images().map(|image| serde_json::from_str(&image.labels).unwrap_or_default()).collect();
    let fits = |filter: &LabelFilter| filter.negated != labels.iter().any(|labels| has_label(labels, filter));
    (!policy.labels.iter().all(fits)).then_some(Stays::Labels)
}

/// Why one name stays.
fn one(
    graph: &Graph,
    policy: &Policy,
    group: &Group,
    root: usize,
    name: &NameRoot,
    last: &HashSet<usize>,
) -> Option<Stays> {
    let shown = || familiar(&name.name);
    if !is_local(name) {
        return Some(Stays::Owner(name.owner.clone()));
    }
    if name.pinned {
        return Some(Stays::Pinned(shown()));
    }
    // Seldom needed, and there may be many names.
    let patterns = !policy.protect.is_empty() || !policy.names.is_empty();
    let reference =
        if patterns && !is_digest(graph, group.target, name) { reference(&name.name) } else { None };
    if let Some(reference) = &reference
        && let Some(pattern) = policy.protect.iter().find(|pattern| pattern.fits(reference))
    {
        return Some(Stays::Protected(shown(), pattern.clone()));
    }
    let fits = |pattern: &NamePattern| reference.as_ref().is_some_and(|name| pattern.fits(name));
    if !policy.names.is_empty() && !policy.names.iter().any(fits) {
        return Some(Stays::NotNamed(shown()));
    }
    last.contains(&root).then(|| Stays::AmongLast(shown()))
}

/// The newest names of each repository: those whose target is the newest.
fn newest(graph: &Graph, groups: &[Group], count: usize) -> HashSet<usize> {
    let mut repositories: HashMap<String, Vec<(UnixSeconds, Option<UnixSeconds>, usize)>> = HashMap::new();
    for group in groups {
        let created = group.images.iter().filter_map(|image| graph.images[*image].created).max();
        for (root, name) in group.names(graph).filter(|(_, name)| is_local(name)) {
            if let Some(reference) = reference(&name.name) {
                let names = repositories.entry(reference.repository().to_owned()).or_default();
                names.push((name.updated_at, created, root));
            }
        }
    }
    let newest = repositories.into_values().flat_map(|mut names| {
        names.sort_unstable_by(|a, b| b.cmp(a));
        names.into_iter().take(count).map(|(.., root)| root)
    });
    newest.collect()
}

/// The labels of an image.
type Labels = serde_json::Map<String, serde_json::Value>;

fn has_label(labels: &Labels, filter: &LabelFilter) -> bool {
    match (labels.get(&filter.key), &filter.value) {
        (Some(found), Some(value)) => found.as_str() == Some(value),
        (found, None) => found.is_some(),
        (None, Some(_)) => false,
    }
}

/// A stored name as a reference; `None` for a digest.
pub(crate) fn reference(name: &str) -> Option<Reference> {
    if name.parse::<Digest>().is_ok() { None } else { name.parse().ok() }
}

/// A stored name as people write it.
pub fn familiar(name: &str) -> String {
    reference(name).map_or_else(|| name.to_owned(), |reference| reference.familiar())
}
