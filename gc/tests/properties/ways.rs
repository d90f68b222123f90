//! Why something is here.

use std::collections::BTreeSet;

use layerstore_gc::{Way, describe, freed_by, groups, ways};
use proptest::prelude::*;

use crate::world::{World, worlds};
use crate::{cases, kept, reach};

/// All ways from what a root keeps down to an object, by trying everything.
fn all(world: &World, edges: &BTreeSet<(usize, usize)>, object: usize) -> BTreeSet<(usize, Vec<usize>)> {
    let mut found = BTreeSet::new();
    for (root, kept) in world.graph.roots.iter().enumerate() {
        for start in &kept.keeps {
            let mut open = vec![vec![*start]];
            while let Some(way) = open.pop() {
                let last = *way.last().unwrap();
                if last == object {
                    found.insert((root, way.clone()));
                }
                for (_, child) in edges.iter().filter(|(parent, _)| *parent == last) {
                    open.push(way.iter().copied().chain([*child]).collect());
                }
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn all_ways_are_found_the_short_ones_first(world in worlds(), object in any::<prop::sample::Index>()) {
        prop_assume!(!world.graph.nodes.is_empty());
        let object = object.index(world.graph.nodes.len());
        let edges: BTreeSet<(usize, usize)> = world.edges.iter().copied().collect();
        let expected = all(&world, &edges, object);
        let found = ways(&world.graph, object, 10_000);
        prop_assert!(!found.more && found.ways.is_sorted_by_key(|way| way.objects.len()));
        prop_assert_eq!(found.ways.len(), expected.len());
        let found: BTreeSet<_> = found.ways.into_iter().map(|Way { root, objects }| (root, objects)).collect();
        prop_assert_eq!(&found, &expected);
        for limit in [1, 2] {
            let few = ways(&world.graph, object, limit);
            prop_assert_eq!(few.ways.len(), expected.len().min(limit));
            prop_assert!(few.more || expected.len() <= limit);
            prop_assert!(few.ways.into_iter().all(|way| expected.contains(&(way.root, way.objects))));
        }
    }

    #[test]
    fn what_removing_an_image_frees_is_what_its_plan_frees(world in worlds()) {
        let before = kept(&world, &BTreeSet::new());
        for group in groups(&world.graph) {
            let freed = freed_by(&world.graph, &group);
            let names: BTreeSet<usize> = group.names.iter().copied().collect();
            let after = kept(&world, &names);
            let gone: BTreeSet<usize> = freed.freed.iter().copied().collect();
            prop_assert_eq!(freed.freed.len(), gone.len());
            prop_assert_eq!(&gone, &before.difference(&after).copied().collect());
            let below = reach(&world.edges, [group.target]);
            let stays: BTreeSet<usize> = freed.stays.iter().map(|(index, _)| *index).collect();
            prop_assert_eq!(&stays, &below.intersection(&after).copied().collect());
            for (index, roots) in &freed.stays {
                let keepers = world.graph.roots.iter().enumerate().filter(|(root, kept)| {
                    !names.contains(root) && reach(&world.edges, kept.keeps.iter().copied()).contains(index)
                });
                prop_assert_eq!(roots, &keepers.map(|(root, _)| root).collect::<Vec<_>>());
            }
        }
        for root in &world.graph.roots {
            prop_assert!(!describe(&root.kind).is_empty());
        }
    }
}

/// A layer that many images have in common: there are more ways than anybody wants to see.
#[test]
fn some_ways_are_found_however_many_there_are() {
    use layerstore_store::{GraphBuilder, NameRoot, NodeKind, Object, RootKind, Size};
    let mut builder = GraphBuilder::default();
    let blob = |builder: &mut GraphBuilder, name: String| {
        builder.node(Object::Blob(crate::world::digest(&name)), Size::default(), NodeKind::Blob)
    };
    let layer = blob(&mut builder, "layer".to_owned());
    for number in 0..1000 {
        let manifest = blob(&mut builder, format!("manifest {number}"));
        let index = blob(&mut builder, format!("index {number}"));
        builder.edge(manifest, layer);
        builder.manifest(index, manifest);
        let name = NameRoot {
            owner: layerstore_store::LOCAL.to_owned(),
            name: format!("docker.io/library/a:{number}"),
            created_at: 0,
            updated_at: 0,
            pulled_at: None,
            pinned: false,
        };
        builder.root(RootKind::Name(name), vec![index]);
    }
    let found = ways(&builder.build(), layer, 3);
    assert_eq!((found.ways.len(), found.more), (3, true));
}
