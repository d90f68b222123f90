//! What would take an object away.

use std::collections::HashSet;

use layerstore_gc::{Above, Group, Plan, Policy, Scope, Stays, plan, plan_beside, reach, takes};
use layerstore_store::{Graph, Object, Size, UnixSeconds};

use super::known::Known;
use super::{Eviction, Outlook, Verdict};

pub(super) fn of(
    known: &Known<'_>,
    above: &Above,
    node: usize,
    policy: Option<(&Policy, u64)>,
    now: UnixSeconds,
) -> Outlook {
    let graph = known.graph;
    if above.roots(node).is_empty() {
        return Outlook::Garbage;
    }
    let leading = above.with(node);
    let groups = known.groups.iter().filter(|group| leading.contains(&group.target));
    let groups: Vec<&Group> = groups.collect();
    let names: HashSet<&str> =
        groups.iter().flat_map(|group| group.names(graph)).map(|(_, name)| name.name.as_str()).collect();
    let last_use = groups.iter().map(|group| group.last_use(graph)).max();
    let unused = Policy { scope: Scope::Unused, ..Policy::default() };
    let goes = takes(graph, &unused, node);
    let dangling = Policy { scope: Scope::Dangling, ..Policy::default() };
    Outlook::Kept(Eviction {
        dangling: goes && takes(graph, &dangling, node),
        unused: goes,
        last_use,
        stays: if goes { Vec::new() } else { stays(&plan(graph, &unused), &names) },
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
    if has(&planned, graph, node) {
        return Verdict::Now;
    }
    if policy.evict.is_some()
        && let Some(part) = part(&planned, graph, node)
    {
        return part;
    }
    if let (Some(since), Some(last_use)) = (policy.unused_since, last_use) {
        let later = Policy { unused_since: None, ..policy.clone() };
        if has(&plan_beside(graph, &later, anyway), graph, node) {
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

fn has(plan: &Plan, graph: &Graph, node: usize) -> bool {
    let object = &graph.nodes[node].object;
    plan.victims.iter().any(|planned| planned.victim.object == *object)
}

/// Why images stay that have these names.
fn stays(plan: &Plan, names: &HashSet<&str>) -> Vec<(Vec<String>, Vec<Stays>)> {
    let kept = plan.kept.iter().filter(|kept| kept.names.iter().any(|name| names.contains(name.as_str())));
    kept.map(|kept| (kept.names.clone(), kept.stays.clone())).collect()
}
