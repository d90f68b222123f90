//! What goes of images that stay.

use std::collections::BTreeSet;

use layerstore_gc::{Cause, Evict, Goal, Policy, plan};
use layerstore_store::{ImageFacts, NodeKind};
use proptest::prelude::*;

use crate::policies::{Target, policies, targets};
use crate::world::{World, worlds};
use crate::{cases, kept, reach, victims};

/// Whether all of a target's names agree, and what goes can be had again.
fn agrees(target: &Target<'_>, policy: &Policy, evict: Evict) -> bool {
    let all = |here: fn(&ImageFacts) -> bool| target.images.iter().all(|image| here(image));
    target.names.iter().all(|(root, name)| target.may_go(policy, *root, name))
        && match evict {
            Evict::Trees => {
                target.images.iter().any(|image| image.layers.iter().any(|layer| layer.tree.is_some()))
                    && all(|image| image.layers.iter().all(|layer| layer.blob.is_some()))
            }
            Evict::Blobs => {
                target.names.iter().any(|(_, name)| name.pulled_at.is_some())
                    && all(|image| image.layers.iter().all(|layer| layer.tree.is_some()))
            }
        }
}

/// What is left if the images of all targets that agree let go of their part.
fn left(world: &World, policy: &Policy, evict: Evict) -> BTreeSet<usize> {
    let mut edges = world.edges.clone();
    let targets = targets(world);
    for image in &world.graph.images {
        let mut above = targets
            .iter()
            .filter(|target| target.images.iter().any(|found| found.manifest == image.manifest))
            .peekable();
        if above.peek().is_some() && above.all(|target| agrees(target, policy, evict)) {
            let parts = if evict == Evict::Trees { &world.unpacked } else { &world.packed };
            for part in parts.iter().filter(|(manifest, _)| *manifest == image.manifest) {
                let place = edges.iter().position(|edge| edge == part).unwrap();
                edges.swap_remove(place);
            }
        }
    }
    reach(&edges, world.graph.roots.iter().flat_map(|root| root.keeps.iter().copied()))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn just_that_is_evicted_on_which_all_images_agree(world in worlds(), policy in policies()) {
        for evict in [Evict::Trees, Evict::Blobs] {
            let policy = Policy { evict: Some(evict), goal: None, ..policy.clone() };
            let plan = plan(&world.graph, &policy);
            let left = left(&world, &policy, evict);
            let gone: BTreeSet<usize> = victims(&world, &plan).into_iter().collect();
            prop_assert_eq!(&gone, &(0..world.graph.nodes.len()).filter(|index| !left.contains(index)).collect());
            prop_assert!(plan.names.is_empty());
        }
    }

    #[test]
    fn evictions_towards_a_goal_take_no_more_than_without_one(world in worlds(), policy in policies()) {
        for evict in [Evict::Trees, Evict::Blobs] {
            let policy = Policy { evict: Some(evict), ..policy.clone() };
            let some = plan(&world.graph, &policy);
            let all = plan(&world.graph, &Policy { goal: None, ..policy.clone() });
            let objects = |plan: &layerstore_gc::Plan| victims(&world, plan).into_iter().collect::<BTreeSet<_>>();
            prop_assert!(objects(&some).is_subset(&objects(&all)));
            if let Some((wanted, freed)) = some.goal {
                let written = some.victims.iter().filter(|victim| victim.kind == NodeKind::Written);
                let written: u64 = written.map(|victim| victim.size.allocated).sum();
                let stored = matches!(policy.goal, Some(Goal::KeepStorage(_)));
                prop_assert_eq!(freed, some.freed().allocated - if stored { written } else { 0 });
                prop_assert!(freed >= wanted || objects(&some) == objects(&all));
            }
        }
    }

    #[test]
    fn what_is_evicted_can_be_had_again(world in worlds(), policy in policies()) {
        for evict in [Evict::Trees, Evict::Blobs] {
            let plan = plan(&world.graph, &Policy { evict: Some(evict), ..policy.clone() });
            let kept = kept(&world, &BTreeSet::new());
            let gone: BTreeSet<usize> = victims(&world, &plan).into_iter().collect();
            for planned in &plan.victims {
                let index = world.graph.find(&planned.victim.object).unwrap();
                prop_assert_eq!(kept.contains(&index), matches!(planned.cause, Cause::Evicted(_)));
                // Exactly what images that stay have in their rows has to be told apart from what nothing needs.
                let parts = if evict == Evict::Trees { &world.unpacked } else { &world.packed };
                let of_an_image = parts.iter().any(|(image, part)| *part == index && kept.contains(image));
                prop_assert_eq!(planned.victim.evicted, of_an_image, "{:?}", planned);
                let kinds: &[NodeKind] = match evict {
                    Evict::Trees => &[NodeKind::Layer, NodeKind::Snapshot],
                    Evict::Blobs => &[NodeKind::Blob],
                };
                prop_assert!(!planned.victim.evicted || kinds.contains(&planned.kind));
                prop_assert!(planned.kind != NodeKind::Written || !kept.contains(&index));
            }
            for image in world.graph.images.iter().filter(|image| kept.contains(&image.manifest)) {
                prop_assert!(!gone.contains(&image.manifest));
                for layer in &image.layers {
                    let halves = [layer.blob, layer.tree];
                    let before = halves.iter().flatten().count();
                    let after = halves.iter().flatten().filter(|half| !gone.contains(half)).count();
                    prop_assert!(before == 0 || after > 0, "nothing is left of a layer");
                }
            }
        }
    }
}
