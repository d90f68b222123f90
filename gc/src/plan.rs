//! Plan: what goes, why, and what that frees, to the byte.

use std::collections::HashSet;

use layerstore_oci::Digest;
use layerstore_store::{Graph, NodeKind, Object, RootKind, Size, Untag, Victim};

use crate::count::Counts;
use crate::group::Group;
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
    /// Bytes that were to be freed, and those that will be, if there was a goal.
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
    /// Its names.
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
    let mut planner = Planner { graph, counts: Counts::new(graph), plan: Plan::default(), freed: 0 };
    let garbage = mark::parents_first(graph, &planner.counts.garbage());
    let stored: u64 = graph.nodes.iter().map(|node| node.size.allocated).sum();
    planner.take(&garbage, |_| Cause::Unreachable);
    let wanted = policy.goal.map(|goal| match goal {
        Goal::Free(bytes) => bytes,
        Goal::KeepStorage(bytes) => stored.saturating_sub(bytes),
    });
    let verdicts = judge(graph, policy);
    match policy.evict {
        None => planner.remove(verdicts, wanted),
        Some(Evict::Trees) => planner.evict_trees(verdicts, wanted),
        Some(Evict::Blobs) => planner.evict_blobs(verdicts, wanted),
    }
    let Planner { mut plan, freed, .. } = planner;
    plan.goal = wanted.map(|wanted| (wanted, freed));
    plan
}

struct Planner<'a> {
    graph: &'a Graph,
    counts: Counts<'a>,
    plan: Plan,
    /// Allocated bytes of all victims.
    freed: u64,
}

impl Planner<'_> {
    /// Adds victims, each after all that point at it.
    fn take(&mut self, objects: &[usize], cause: impl Fn(usize) -> Cause) {
        for index in objects.iter().copied() {
            let node = &self.graph.nodes[index];
            let cause = cause(index);
            // A fix-up is of no use without its stack, and made again with it.
            let evicted = matches!(cause, Cause::Evicted(_)) && node.kind != NodeKind::Fixup;
            let victim = Victim { object: node.object.clone(), evicted };
            self.plan.victims.push(PlannedVictim { victim, kind: node.kind, size: node.size, cause });
            self.freed = self.freed.saturating_add(node.size.allocated);
        }
    }

    fn keep(&mut self, group: &Group, stays: Vec<Stays>) {
        let names = group.names(self.graph).map(|(_, name)| name.name.clone()).collect();
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
                self.keep(&verdict.group, std::mem::take(&mut verdict.stays));
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
            unless_used: Some(used.collect()),
        })
    }

    /// Lets go of the trees of images that nothing uses, as far as all images that have them agree.
    fn evict_trees(&mut self, verdicts: Vec<Verdict>, wanted: Option<u64>) {
        for verdict in verdicts {
            let layers = verdict.group.images.iter().flat_map(|image| &self.graph.images[*image].layers);
            let mut layers = layers.peekable();
            let reason = match () {
                () if !verdict.stays.is_empty() => None,
                () if layers.peek().is_none() => Some(Stays::NoTrees),
                () if layers.any(|layer| layer.blob.is_none()) => Some(Stays::NoBlobs),
                () if wanted.is_some_and(|wanted| self.freed >= wanted) => Some(Stays::Enough),
                () => {
                    let images = verdict.group.images.iter().map(|image| &self.graph.images[*image]);
                    let needs = images.flat_map(|image| {
                        image.layers.iter().filter_map(|layer| layer.tree).chain(image.chain)
                    });
                    self.evict(&verdict.group, needs.collect());
                    continue;
                }
            };
            self.keep(&verdict.group, reason.map_or(verdict.stays, |reason| vec![reason]));
        }
    }

    /// Lets go of the layer blobs of images that nothing uses and that were pulled.
    fn evict_blobs(&mut self, verdicts: Vec<Verdict>, wanted: Option<u64>) {
        for verdict in verdicts {
            let layers = verdict.group.images.iter().flat_map(|image| &self.graph.images[*image].layers);
            let mut layers = layers.peekable();
            let pulled = verdict.group.names(self.graph).any(|(_, name)| name.pulled_at.is_some());
            let reason = match () {
                () if !verdict.stays.is_empty() => None,
                () if !pulled => Some(Stays::NotPulled),
                () if layers.peek().is_none() => Some(Stays::NoBlobs),
                () if layers.any(|layer| layer.tree.is_none()) => Some(Stays::NoTrees),
                () if wanted.is_some_and(|wanted| self.freed >= wanted) => Some(Stays::Enough),
                () => {
                    let images = verdict.group.images.iter().map(|image| &self.graph.images[*image]);
                    // A manifest that has a layer twice names its blob once.
                    let blobs = images.flat_map(|image| {
                        let blobs: HashSet<usize> =
                            image.layers.iter().filter_map(|layer| layer.blob).collect();
                        blobs
                    });
                    let mut blobs: Vec<usize> = blobs.collect();
                    blobs.sort_unstable();
                    self.evict(&verdict.group, blobs);
                    continue;
                }
            };
            self.keep(&verdict.group, reason.map_or(verdict.stays, |reason| vec![reason]));
        }
    }

    fn evict(&mut self, group: &Group, objects: Vec<usize>) {
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
