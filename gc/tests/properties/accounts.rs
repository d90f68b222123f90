//! What everything takes.

use std::collections::BTreeSet;

use layerstore_gc::{Policy, Scope, account, images, plan};
use layerstore_store::{NodeKind, RootKind};
use proptest::prelude::*;

use crate::policies::targets;
use crate::world::worlds;
use crate::{cases, kept, reach, size, victims};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_sizes_of_images_add_up(world in worlds()) {
        let graph = &world.graph;
        for (image, account) in graph.images.iter().zip(images(graph)) {
            prop_assert_eq!(account.shared + account.unique(), account.size);
            let (mut size, mut shared) = (0, 0);
            for layer in image.layers.iter().filter_map(|layer| layer.tree.or(layer.blob)) {
                let bytes = graph.nodes[layer].size.apparent;
                let others = graph.images.iter().filter(|other| other.config != image.config);
                let in_others = others.flat_map(|other| &other.layers).any(|other| other.tree.or(other.blob) == Some(layer));
                size += bytes;
                shared += if in_others { bytes } else { 0 };
            }
            prop_assert_eq!((account.size, account.shared), (size, shared));
            let containers = graph.roots.iter().filter(|root| matches!(root.kind, RootKind::Container { .. }) && root.keeps.contains(&image.manifest));
            prop_assert_eq!(account.containers(), containers.count());
        }
    }

    #[test]
    fn what_is_freed_is_what_the_total_shrinks_by(world in worlds()) {
        let account = account(&world.graph);
        let before = size(&world, &kept(&world, &BTreeSet::new()));
        let mut expected = targets(&world);
        expected.sort_by_key(|target| target.index);
        prop_assert_eq!(account.groups.len(), expected.len());
        for (found, target) in account.groups.iter().zip(&expected) {
            let names: BTreeSet<usize> = target.names.iter().map(|(root, _)| *root).collect();
            prop_assert_eq!(&found.group.names.iter().copied().collect::<BTreeSet<_>>(), &names);
            prop_assert_eq!(found.last_use, target.last_use());
            prop_assert_eq!(size(&world, &kept(&world, &names)) + found.freed, before);
            prop_assert!(found.freed.allocated <= account.named.allocated);
            let images: BTreeSet<usize> = found.group.images.iter().map(|image| world.graph.images[*image].manifest).collect();
            prop_assert_eq!(images, target.images.iter().map(|image| image.manifest).collect());
        }
    }

    #[test]
    fn every_object_is_in_one_row(world in worlds()) {
        let account = account(&world.graph);
        let all: u64 = account.kinds.iter().map(|(_, all, _)| all.size.allocated).sum();
        let garbage: u64 = account.kinds.iter().map(|(.., garbage)| garbage.size.allocated).sum();
        let objects = account.kinds.iter().map(|(_, all, _)| all.count).sum::<u64>();
        let everything = size(&world, &(0..world.graph.nodes.len()).collect()).allocated;
        prop_assert_eq!((objects, all), (world.graph.nodes.len() as u64, everything));
        prop_assert_eq!(all - garbage, size(&world, &kept(&world, &BTreeSet::new())).allocated);
        prop_assert_eq!(plan(&world.graph, &Policy::default()).freed().allocated, garbage);
        let named: Vec<usize> = targets(&world).iter().map(|target| target.index).collect();
        prop_assert_eq!(account.named, size(&world, &reach(&world.edges, named)));
        for kind in [NodeKind::Blob, NodeKind::Layer, NodeKind::Fixup, NodeKind::Written, NodeKind::Snapshot] {
            let nodes = world.graph.nodes.iter().filter(|node| node.kind == kind).count();
            prop_assert_eq!(account.kind(kind).0.count, nodes as u64);
        }
    }

    #[test]
    fn reclaimable_is_no_more_than_there_is(world in worlds()) {
        let account = account(&world.graph);
        let plan = plan(&world.graph, &Policy { scope: Scope::Unused, ..Policy::default() });
        let named: BTreeSet<usize> = reach(&world.edges, targets(&world).iter().map(|target| target.index));
        let of_names = victims(&world, &plan).into_iter().filter(|index| named.contains(index)).collect();
        prop_assert!(size(&world, &of_names).allocated <= account.named.allocated);
        prop_assert!(account.active_ids <= account.image_ids);
    }
}
