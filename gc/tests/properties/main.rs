//! Random graphs, and what must hold of every plan and account made from them. The oracles are written in the plainest
//! way that there is, over lists of edges of their own.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in helpers as well")]

mod accounts;
mod evictions;
mod plans;
mod policies;
mod ways;
mod world;

use std::collections::BTreeSet;

use layerstore_gc::Plan;
use layerstore_store::Size;
use proptest::test_runner::Config;

use crate::world::World;

/// How many graphs each property is tried with.
fn cases() -> Config {
    Config { failure_persistence: None, max_shrink_iters: 2000, ..Config::with_cases(400) }
}

/// What `starts` lead to, by going over all edges until nothing is new.
fn reach(edges: &[(usize, usize)], starts: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
    let mut reached: BTreeSet<usize> = starts.into_iter().collect();
    loop {
        let before = reached.len();
        for (parent, child) in edges {
            if reached.contains(parent) {
                reached.insert(*child);
            }
        }
        if reached.len() == before {
            return reached;
        }
    }
}

/// What is kept without these roots.
fn kept(world: &World, without: &BTreeSet<usize>) -> BTreeSet<usize> {
    let roots = world.graph.roots.iter().enumerate().filter(|(index, _)| !without.contains(index));
    reach(&world.edges, roots.flat_map(|(_, root)| root.keeps.iter().copied()))
}

fn size(world: &World, objects: &BTreeSet<usize>) -> Size {
    objects.iter().map(|index| world.graph.nodes[*index].size).sum()
}

/// Indices of the victims, in the order of the plan.
fn victims(world: &World, plan: &Plan) -> Vec<usize> {
    plan.victims.iter().map(|planned| world.graph.find(&planned.victim.object).unwrap()).collect()
}

/// Indices of the roots that are the plan's names.
fn removed(world: &World, plan: &Plan) -> BTreeSet<usize> {
    let find =
        |name: &layerstore_gc::PlannedName| world.root_named(&name.untag.owner, &name.untag.name).unwrap();
    plan.names.iter().map(find).collect()
}
