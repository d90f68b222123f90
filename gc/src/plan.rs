//! Plan: what goes, why, and what that frees, to the byte.

use std::collections::{BTreeSet, HashSet};

use layerstore_oci::Digest;
use layerstore_store::{
    Graph, ImageFacts, LayerFacts, NodeKind, Object, RootKind, Size, Unless, Untag, Victim,
};

use crate::count::Counts;
use crate::group::{Group, groups};
use crate::mark;
use crate::policy::{Evict, Goal, Policy, Reason, Stays, Verdict, judge};

/// What a collection is going to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Names that go, those first whose image was not used for the longest time.
    pub names: Vec<PlannedName>,
    /// Objects that go, each after all that point at it.
    pub victims: Vec<PlannedVictim>,
    /// Images that the policy is about and that stay.
    pub kept: Vec<Kept>,
    /// Bytes that were to be freed, and those of them that will be, what goes anyway included, if there was a goal.
    pub goal: Option<(u64, u64)>,
}

/// A name that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedName {
    /// The name.
    pub untag: Untag,
    /// The image ID, or the target of what is no image.
    pub id: Digest,
    /// Why.
    pub reason: Reason,
    /// What goes by this, after all that goes before.
    pub freed: Size,
}

/// An object that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedVictim {
    /// The object.
    pub victim: Victim,
    /// What it is.
    pub kind: NodeKind,
    /// What it takes.
    pub size: Size,
    /// Why it goes.
    pub cause: Cause,
}

/// Why an object goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Nothing keeps it.
    Unreachable,
    /// Nothing keeps it once this name is gone.
    Name(String),
    /// It can be had again; the image has this name.
    Evicted(String),
}

/// An image that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its names, without those that go.
    pub names: Vec<String>,
    /// The image ID, or the target of what is no image.
    pub id: Digest,
    /// Why; several of its names may stay for reasons of their own.
    pub stays: Vec<Stays>,
}

impl Plan {
    /// What is freed altogether.
    pub fn freed(&self) -> Size {
        self.victims.iter().map(|victim| victim.size).sum()
    }
}

/// Works out what `policy` does to the store that `graph` shows.
pub fn plan(graph: &Graph, policy: &Policy) -> Plan {
    plan_beside(graph, policy, 0)
}

/// The same where so many bytes of blocks go anyway that have no rows: trash, what nobody knows, what killed commands left.
/// They count towards what is to be freed, or a collection that was killed while it unlinked would take more images when
/// it runs again.
pub fn plan_beside(graph: &Graph, policy: &Policy, goes_anyway: u64) -> Plan {
    let (counts, direct) = (Counts::new(graph), HashSet::new());
    let mut planner = Planner { graph, counts, plan: Plan::default(), goal: policy.goal, freed: 0, direct };
    let wanted = policy.goal.map(|goal| match goal {
        Goal::Free(bytes) => {
            planner.freed = goes_anyway;
            bytes
        }
        Goal::KeepStorage(bytes) => {
            let stored = graph.nodes.iter().filter(|node| is_storage(node.kind));
            stored.map(|node| node.size.allocated).sum::<u64>().saturating_sub(bytes)
        }
    });
    let garbage = mark::parents_first(graph, &planner.counts.garbage());
    planner.take(&garbage, |_| Cause::Unreachable);
    let verdicts = judge(graph, policy);
    match policy.evict {
        None => planner.remove(verdicts, wanted),
        Some(evict) => planner.evict(verdicts, wanted, evict),
    }
    let Planner { mut plan, freed, .. } = planner;
    plan.goal = wanted.map(|wanted| (wanted, freed));
    plan
}

/// What goes of the images that a policy without a goal takes: the bytes of its plan, without telling of what.
pub fn freed_by_policy(graph: &Graph, policy: &Policy) -> Size {
    let mut counts = Counts::new(graph);
    let mut freed = Size::default();
    for verdict in judge(graph, policy) {
        for _ in &verdict.names {
            let objects = counts.release([verdict.group.target]);
            freed += counts.size(&objects);
        }
    }
    freed
}

/// Whether a policy without a goal, which evicts nothing, takes an object: what its plan says, without making one.
pub fn takes(graph: &Graph, policy: &Policy, object: usize) -> bool {
    let mut counts = Counts::new(graph);
    for verdict in judge(graph, policy) {
        counts.release(verdict.names.iter().map(|_| verdict.group.target));
    }
    !counts.is_kept(object)
}

/// Whether something is there for images: what containers have written has no part in how much may be stored of them.
fn is_storage(kind: NodeKind) -> bool {
    matches!(kind, NodeKind::Blob | NodeKind::Layer | NodeKind::Fixup)
}

struct Planner<'a> {
    graph: &'a Graph,
    counts: Counts<'a>,
    plan: Plan,
    goal: Option<Goal>,
    /// What has been done for the goal, in bytes of blocks.
    freed: u64,
    /// What images let go of that stay.
    direct: HashSet<usize>,
}

impl Planner<'_> {
    /// Adds victims, each after all that point at it.
    fn take(&mut self, objects: &[usize], cause: impl Fn(usize) -> Cause) {
        for index in objects.iter().copied() {
            let node = &self.graph.nodes[index];
            let cause = cause(index);
            // What goes only with these, as a fix-up does with its stack, is needed by nothing then.
            let evicted = self.direct.contains(&index);
            let victim = Victim { object: node.object.clone(), evicted };
            self.plan.victims.push(PlannedVictim { victim, kind: node.kind, size: node.size, cause });
            if !matches!(self.goal, Some(Goal::KeepStorage(_))) || is_storage(node.kind) {
                self.freed = self.freed.saturating_add(node.size.allocated);
            }
        }
    }

    fn keep(&mut self, group: &Group, stays: Vec<Stays>) {
        self.keep_but(group, &[], stays);
    }

    /// The same for a group of which some names go.
    fn keep_but(&mut self, group: &Group, gone: &[(usize, Reason)], stays: Vec<Stays>) {
        let stay = group.names(self.graph).filter(|(root, _)| gone.iter().all(|(other, _)| other != root));
        let names = stay.map(|(_, name)| name.name.clone()).collect();
        self.plan.kept.push(Kept { names, id: id(self.graph, group), stays });
    }

    fn remove(&mut self, verdicts: Vec<Verdict>, wanted: Option<u64>) {
        for mut verdict in verdicts {
            // Untagging alone frees nothing.
            let partly = wanted.is_some() && !verdict.stays.is_empty();
            if verdict.names.is_empty() || partly {
                self.keep(&verdict.group, verdict.stays);
                continue;
            }
            if wanted.is_some_and(|wanted| self.freed >= wanted) {
                self.keep(&verdict.group, vec![Stays::Enough]);
                continue;
            }
            if !verdict.stays.is_empty() {
                let stays = std::mem::take(&mut verdict.stays);
                self.keep_but(&verdict.group, &verdict.names, stays);
            }
            let id = id(self.graph, &verdict.group);
            for (root, reason) in verdict.names {
                let freed = self.counts.release([verdict.group.target]);
                let size = self.counts.size(&freed);
                let Some(untag) = self.untag(&verdict.group, root) else { continue };
                let name = untag.name.clone();
                self.take(&freed, |_| Cause::Name(name.clone()));
                self.plan.names.push(PlannedName { untag, id: id.clone(), reason, freed: size });
            }
        }
    }

    fn untag(&self, group: &Group, root: usize) -> Option<Untag> {
        let RootKind::Name(name) = &self.graph.roots[root].kind else { return None };
        let Object::Blob(target) = &self.graph.nodes[group.target].object else { return None };
        let images = group.images.iter().map(|image| &self.graph.images[*image]);
        let used = images.filter_map(|image| match &self.graph.nodes[image.manifest].object {
            Object::Blob(manifest) => Some((manifest.clone(), image.last_used_at)),
            _ => None,
        });
        Some(Untag {
            owner: name.owner.clone(),
            name: name.name.clone(),
            target: target.clone(),
            unless: Unless::Used {
                images: used.collect(),
                updated_at: name.updated_at,
                pulled_at: name.pulled_at,
            },
        })
    }

    /// Lets go of the trees or blobs of images that nothing uses, as far as all images that have them agree.
    fn evict(&mut self, verdicts: Vec<Verdict>, wanted: Option<u64>, evict: Evict) {
        let graph = self.graph;
        // An image that several manifests or indexes with names lead to lets go once, with the last of them to agree.
        let mut undecided = vec![0_usize; graph.images.len()];
        for group in &groups(graph) {
            for image in &group.images {
                undecided[*image] += 1;
            }
        }
        for Verdict { group, stays, .. } in verdicts {
            if !stays.is_empty() {
                self.keep(&group, stays);
            } else if let Some(reason) = self.not_evictable(&group, evict) {
                self.keep(&group, vec![reason]);
            } else if wanted.is_some_and(|wanted| self.freed >= wanted) {
                self.keep(&group, vec![Stays::Enough]);
            } else {
                let mut objects = Vec::new();
                for image in &group.images {
                    undecided[*image] -= 1;
                    if undecided[*image] == 0 {
                        objects.extend(self.parts(&graph.images[*image], evict));
                    }
                }
                self.let_go(&group, objects);
            }
        }
    }

    /// Why nothing of the images of a group can be had again, or nothing is there that could go.
    fn not_evictable(&self, group: &Group, evict: Evict) -> Option<Stays> {
        let layers = || group.images.iter().flat_map(|image| &self.graph.images[*image].layers);
        let here = |half: Option<usize>| half.is_some_and(|index| !self.graph.missing.contains(&index));
        let (trees, blobs) = (|layer: &LayerFacts| here(layer.tree), |layer: &LayerFacts| here(layer.blob));
        match evict {
            Evict::Trees if !layers().any(trees) => Some(Stays::NoTrees),
            Evict::Trees if !layers().all(blobs) => Some(Stays::NoBlobs),
            Evict::Blobs if group.names(self.graph).all(|(_, name)| name.pulled_at.is_none()) => {
                Some(Stays::NotPulled)
            }
            Evict::Blobs if !layers().any(blobs) => Some(Stays::NoBlobs),
            Evict::Blobs if !layers().all(trees) => Some(Stays::NoTrees),
            Evict::Trees | Evict::Blobs => None,
        }
    }

    /// What an image lets go of.
    fn parts(&self, image: &ImageFacts, evict: Evict) -> Vec<usize> {
        match evict {
            Evict::Trees => image.layers.iter().filter_map(|layer| layer.tree).chain(image.chain).collect(),
            // A manifest that has a layer twice names its blob once.
            Evict::Blobs => {
                let blobs: BTreeSet<usize> = image.layers.iter().filter_map(|layer| layer.blob).collect();
                // What leads to others is no layer, whatever an image says.
                blobs.into_iter().filter(|blob| self.graph.children(*blob).len() == 0).collect()
            }
        }
    }

    fn let_go(&mut self, group: &Group, objects: Vec<usize>) {
        self.direct.extend(&objects);
        let freed = self.counts.release(objects);
        let name = group.names(self.graph).map(|(_, name)| name.name.clone()).next().unwrap_or_default();
        self.take(&freed, |_| Cause::Evicted(name.clone()));
    }
}

/// The image ID, or the target of what is no image.
pub(crate) fn id(graph: &Graph, group: &Group) -> Digest {
    match (group.images.first(), &graph.nodes[group.target].object) {
        (Some(image), _) => graph.images[*image].config.clone(),
        (None, Object::Blob(digest)) => digest.clone(),
        // A name has no other target.
        (None, _) => Digest::sha256_of(b""),
    }
}
