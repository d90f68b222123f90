//! What goes and what stays, whatever the policy.

use std::collections::{BTreeMap, BTreeSet};

use layerstore_gc::{Cause, Counts, Goal, Plan, Policy, Scope, plan};
use layerstore_store::{Graph, GraphBuilder, LayerFacts, RootKind};
use proptest::prelude::*;

use crate::policies::policies;
use crate::world::{World, worlds};
use crate::{cases, kept, reach, removed, size, victims};

/// The world after a plan was carried out.
fn after(world: &World, plan: &Plan) -> Graph {
    let gone: BTreeSet<usize> = victims(world, plan).into_iter().collect();
    let names = removed(world, plan);
    let (mut builder, mut new) = (GraphBuilder::default(), BTreeMap::new());
    for (index, node) in world.graph.nodes.iter().enumerate().filter(|(index, _)| !gone.contains(index)) {
        new.insert(index, builder.node(node.object.clone(), node.size, node.kind));
    }
    let images: Vec<usize> = world.graph.images.iter().map(|image| image.manifest).collect();
    for index in new.keys() {
        for child in world.graph.manifests(*index).filter(|child| new.contains_key(child)) {
            builder.manifest(new[index], new[&child]);
        }
    }
    for (parent, child) in &world.edges {
        let listed = world.graph.manifests(*parent).any(|manifest| manifest == *child);
        let unpacked = images.contains(parent) && world.unpacked.contains(&(*parent, *child));
        if let (Some(parent), Some(child), false) = (new.get(parent), new.get(child), listed || unpacked) {
            builder.edge(*parent, *child);
        }
    }
    for mut image in world.graph.images.iter().cloned() {
        let Some(manifest) = new.get(&image.manifest) else { continue };
        let here = |index: Option<usize>| index.and_then(|index| new.get(&index).copied());
        image.manifest = *manifest;
        image.chain = here(image.chain);
        image.layers = image
            .layers
            .iter()
            .map(|layer| LayerFacts { blob: here(layer.blob), tree: here(layer.tree) })
            .collect();
        builder.image(image);
    }
    for (_, root) in world.graph.roots.iter().enumerate().filter(|(index, _)| !names.contains(index)) {
        let keeps = root.keeps.iter().map(|index| new[index]).collect();
        builder.root(root.kind.clone(), keeps);
    }
    builder.build()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn just_what_nothing_leads_to_is_collected(world in worlds(), policy in policies()) {
        let policy = Policy { evict: None, ..policy };
        let plan = plan(&world.graph, &policy);
        let kept = kept(&world, &removed(&world, &plan));
        let victims = victims(&world, &plan);
        let gone: BTreeSet<usize> = victims.iter().copied().collect();
        prop_assert_eq!(victims.len(), gone.len(), "one comes twice");
        prop_assert_eq!(&gone, &(0..world.graph.nodes.len()).filter(|index| !kept.contains(index)).collect());
        prop_assert_eq!(plan.freed(), size(&world, &gone));
        prop_assert!(plan.victims.iter().all(|planned| !planned.victim.evicted));
    }

    #[test]
    fn victims_come_after_all_that_point_at_them(world in worlds(), policy in policies()) {
        let plan = plan(&world.graph, &policy);
        let order: BTreeMap<usize, usize> =
            victims(&world, &plan).into_iter().enumerate().map(|(place, index)| (index, place)).collect();
        for (parent, child) in &world.edges {
            if let (Some(parent), Some(child)) = (order.get(parent), order.get(child)) {
                prop_assert!(parent < child);
            }
        }
    }

    #[test]
    fn every_name_frees_what_the_total_shrinks_by(world in worlds(), policy in policies()) {
        let policy = Policy { evict: None, ..policy };
        let plan = plan(&world.graph, &policy);
        let mut gone = BTreeSet::new();
        for name in &plan.names {
            let before = size(&world, &kept(&world, &gone));
            gone.insert(world.root_named(&name.untag.owner, &name.untag.name).unwrap());
            let after = size(&world, &kept(&world, &gone));
            prop_assert_eq!(after + name.freed, before);
        }
        for planned in &plan.victims {
            let index = world.graph.find(&planned.victim.object).unwrap();
            let expected = match &planned.cause {
                Cause::Unreachable => !kept(&world, &BTreeSet::new()).contains(&index),
                Cause::Name(name) => plan.names.iter().any(|removed| removed.untag.name == *name),
                Cause::Evicted(_) => false,
            };
            prop_assert!(expected, "{:?}", planned);
        }
    }

    #[test]
    fn the_second_time_nothing_goes(world in worlds(), policy in policies()) {
        // To free some bytes once more is to free others.
        let goal = policy.goal.filter(|goal| matches!(goal, Goal::KeepStorage(_)));
        let policy = Policy { goal, ..policy };
        let first = plan(&world.graph, &policy);
        let second = plan(&after(&world, &first), &policy);
        prop_assert_eq!((second.names, second.victims), (Vec::new(), Vec::new()));
    }

    #[test]
    fn all_that_is_unused_leaves_what_others_keep(world in worlds()) {
        let plan = plan(&world.graph, &Policy { scope: Scope::Unused, ..Policy::default() });
        let left = after(&world, &plan);
        let stay = left.roots.iter().flat_map(|root| root.keeps.iter().copied());
        let stays = layerstore_gc::reach(&left, stay);
        prop_assert!(stays.iter().all(|stays| *stays), "something stays that no root leads to");
        let mut without = removed(&world, &plan);
        for (index, root) in world.graph.roots.iter().enumerate() {
            if let RootKind::Name(name) = &root.kind {
                let explained = plan.kept.iter().any(|kept| kept.names.contains(&name.name) && !kept.stays.is_empty());
                prop_assert!(without.contains(&index) || explained, "{name:?} stays for no reason");
                without.insert(index);
            }
        }
        let others = kept(&world, &without);
        let gone: BTreeSet<usize> = victims(&world, &plan).into_iter().collect();
        prop_assert!(gone.is_disjoint(&others));
    }

    #[test]
    fn released_and_restored_it_is_as_before(world in worlds(), starts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        let mut counts = Counts::new(&world.graph);
        let before = format!("{counts:?}");
        let mut roots: Vec<usize> = (0..world.graph.roots.len()).collect();
        let mut released = Vec::new();
        for start in starts {
            if !roots.is_empty() {
                released.push(roots.swap_remove(start.index(roots.len())));
            }
        }
        let objects: Vec<usize> = released.iter().flat_map(|root| world.graph.roots[*root].keeps.clone()).collect();
        let freed = counts.release(objects.iter().copied());
        let expected: BTreeSet<usize> = kept(&world, &BTreeSet::new())
            .difference(&kept(&world, &released.into_iter().collect()))
            .copied()
            .collect();
        prop_assert_eq!(&freed.iter().copied().collect::<BTreeSet<_>>(), &expected);
        prop_assert_eq!(counts.size(&freed), size(&world, &expected));
        counts.restore(objects, &freed);
        prop_assert_eq!(format!("{counts:?}"), before);
    }

    #[test]
    fn marks_are_what_edges_say(world in worlds()) {
        for start in 0..world.graph.nodes.len() {
            let found = layerstore_gc::reach(&world.graph, [start]);
            let found: BTreeSet<usize> = (0..found.len()).filter(|index| found[*index]).collect();
            prop_assert_eq!(found, reach(&world.edges, [start]));
        }
    }
}
