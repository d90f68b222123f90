//! What would take an object away.

use std::collections::HashSet;

use layerstore_gc::{Group, Plan, Policy, Scope, Stays, groups, plan, plan_beside, reach};
use layerstore_store::{Graph, Object, Size, UnixSeconds};

use super::{Eviction, Outlook, Verdict};

pub(super) fn of(graph: &Graph, node: usize, policy: Option<(&Policy, u64)>, now: UnixSeconds) -> Outlook {
    let above = above(graph, node);
    if !graph.roots.iter().any(|root| root.keeps.iter().any(|index| above.contains(index))) {
        return Outlook::Garbage;
    }
    let mut groups = groups(graph);
    groups.retain(|group| above.contains(&group.target));
    let names = names(graph, &groups);
    let last_use = groups.iter().map(|group| group.last_use(graph)).max();
    let unused = Policy { scope: Scope::Unused, ..Policy::default() };
    let planned = plan(graph, &unused);
    let goes = takes(&planned, graph, node);
    let dangling = Policy { scope: Scope::Dangling, ..Policy::default() };
    Outlook::Kept(Eviction {
        dangling: goes && takes(&plan(graph, &dangling), graph, node),
        unused: goes,
        last_use,
        stays: if goes { Vec::new() } else { stays(&planned, &names) },
        policy: policy.map(|policy| verdict(graph, node, policy, &names, last_use, now)),
    })
}

fn verdict(
    graph: &Graph,
    node: usize,
    (policy, anyway): (&Policy, u64),
    names: &HashSet<&str>,
    last_use: Option<UnixSeconds>,
    now: UnixSeconds,
) -> Verdict {
    let planned = plan_beside(graph, policy, anyway);
    if takes(&planned, graph, node) {
        return Verdict::Now;
    }
    if policy.evict.is_some()
        && let Some(part) = part(&planned, graph, node)
    {
        return part;
    }
    if let (Some(since), Some(last_use)) = (policy.unused_since, last_use) {
        let later = Policy { unused_since: None, ..policy.clone() };
        if takes(&plan_beside(graph, &later, anyway), graph, node) {
            // From the first moment at which its last use is longer ago than the policy wants.
            let span = now.saturating_sub(since);
            return Verdict::At(last_use.saturating_add(span).saturating_add(1));
        }
    }
    Verdict::Never(stays(&planned, names))
}

/// What goes of that which the object leads to.
fn part(plan: &Plan, graph: &Graph, node: usize) -> Option<Verdict> {
    let below = reach(graph, [node]);
    let (mut blobs, mut trees, mut size) = (0, 0, Size::default());
    for planned in &plan.victims {
        let object = &planned.victim.object;
        if !graph.find(object).is_some_and(|index| below[index]) {
            continue;
        }
        match object {
            Object::Blob(_) => blobs += 1,
            Object::Tree(_) => trees += 1,
            Object::Snapshot { .. } => continue,
        }
        size = [size, planned.size].into_iter().sum();
    }
    (blobs + trees > 0).then_some(Verdict::Part { blobs, trees, size })
}

fn takes(plan: &Plan, graph: &Graph, node: usize) -> bool {
    let object = &graph.nodes[node].object;
    plan.victims.iter().any(|planned| planned.victim.object == *object)
}

/// Why images stay that have these names.
fn stays(plan: &Plan, names: &HashSet<&str>) -> Vec<(Vec<String>, Vec<Stays>)> {
    let kept = plan.kept.iter().filter(|kept| kept.names.iter().any(|name| names.contains(name.as_str())));
    kept.map(|kept| (kept.names.clone(), kept.stays.clone())).collect()
}

fn names<'a>(graph: &'a Graph, groups: &[Group]) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    for group in groups {
        found.extend(group.names(graph).map(|(_, name)| name.name.as_str()));
    }
    found
}

/// What leads to an object, itself included.
fn above(graph: &Graph, node: usize) -> HashSet<usize> {
    let mut parents = vec![Vec::new(); graph.nodes.len()];
    for parent in 0..graph.nodes.len() {
        for child in graph.children(parent) {
            parents[child].push(parent);
        }
    }
    let (mut found, mut open) = (HashSet::new(), vec![node]);
    while let Some(index) = open.pop() {
        if found.insert(index) {
            open.extend(&parents[index]);
        }
    }
    found
}
