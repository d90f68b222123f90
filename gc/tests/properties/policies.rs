//! Which names a policy takes.

use std::collections::{BTreeMap, BTreeSet};

use layerstore_gc::{Evict, Goal, LabelFilter, Policy, Reason, Scope, Stays, plan, plan_beside};
use layerstore_oci::{NamePattern, Reference};
use layerstore_store::{ImageFacts, LOCAL, NameRoot, NodeKind, Object, RootKind, Unless};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::world::{World, worlds};
use crate::{cases, kept, reach, removed, size};

pub(crate) fn policies() -> impl Strategy<Value = Policy> {
    let scope = prop_oneof![1 => Just(Scope::Garbage), 1 => Just(Scope::Dangling), 4 => Just(Scope::Unused)];
    let pattern = prop_oneof![
        Just("a"),
        Just("b:1"),
        Just("example.com/*/*"),
        Just("?:2"),
        Just("docker.io/library/b")
    ]
    .prop_map(NamePattern::new);
    let label =
        (prop_oneof![Just("a"), Just("b")], option::of(prop_oneof![Just("1"), Just("")]), any::<bool>())
            .prop_map(|(key, value, negated)| LabelFilter {
                key: key.to_owned(),
                value: value.map(str::to_owned),
                negated,
            });
    let goal = prop_oneof![(0..150_u64).prop_map(Goal::Free), (0..250_u64).prop_map(Goal::KeepStorage)];
    let rarely = |strategy| option::weighted(0.25, strategy);
    (
        scope,
        prop_oneof![4 => Just(Vec::new()), 1 => vec(pattern.clone(), 1..3)],
        rarely(0..7_i64),
        prop_oneof![4 => Just(Vec::new()), 1 => vec(label, 1..3)],
        rarely(0..9_i64),
        option::weighted(0.4, 0..3_usize),
        prop_oneof![4 => Just(Vec::new()), 1 => vec(pattern, 1..3)],
        option::weighted(0.4, goal),
        prop_oneof![2 => Just(None), 1 => Just(Some(Evict::Trees)), 1 => Just(Some(Evict::Blobs))],
    )
        .prop_map(|(scope, names, until, labels, unused_since, keep_last, protect, goal, evict)| {
            Policy {
                scope,
                names,
                until,
                labels,
                unused_since,
                keep_last,
                protect,
                goal,
                evict,
                interrupted: false,
            }
        })
}

/// A target with names, looked at by itself.
pub(crate) struct Target<'a> {
    world: &'a World,
    pub(crate) index: usize,
    pub(crate) names: Vec<(usize, &'a NameRoot)>,
    pub(crate) images: Vec<&'a ImageFacts>,
}

pub(crate) fn targets(world: &World) -> Vec<Target<'_>> {
    let mut named: BTreeMap<usize, Vec<(usize, &NameRoot)>> = BTreeMap::new();
    for (index, root) in world.graph.roots.iter().enumerate() {
        if let RootKind::Name(name) = &root.kind {
            named.entry(root.keeps[0]).or_default().push((index, name));
        }
    }
    let mut targets: Vec<Target<'_>> = named
        .into_iter()
        .map(|(index, names)| {
            // Manifests are all that leads from a blob to a manifest here.
            let below = reach(&world.edges, [index]);
            let images = world.graph.images.iter().filter(|image| below.contains(&image.manifest)).collect();
            Target { world, index, names, images }
        })
        .collect();
    targets.sort_by_key(|target| (target.last_use(), target.index));
    targets
}

impl Target<'_> {
    fn text(&self) -> String {
        match &self.world.graph.nodes[self.index].object {
            Object::Blob(digest) => digest.to_string(),
            other => panic!("{other:?} has a name"),
        }
    }

    pub(crate) fn last_use(&self) -> i64 {
        let mut last = 0;
        for (_, name) in &self.names {
            last = last.max(name.updated_at).max(name.pulled_at.unwrap_or(0));
        }
        for image in &self.images {
            last = last.max(image.last_used_at.unwrap_or(0));
        }
        last
    }

    fn is_dangling(&self) -> bool {
        self.names.iter().all(|(_, name)| name.name == self.text())
    }

    /// Whether a container, a mount or a lease has a manifest of it, or a snapshot is just above its chain.
    fn is_used(&self) -> bool {
        let graph = &self.world.graph;
        graph.roots.iter().any(|root| match &root.kind {
            RootKind::Name(_) => false,
            RootKind::Snapshot { .. } => self.world.edges.iter().any(|(above, below)| {
                root.keeps[0] == *above
                    && matches!(&graph.nodes[*below].object, Object::Snapshot { key, .. }
                        if self.images.iter().any(|image| image.chain_key.as_ref() == Some(key)))
            }),
            _ => self.images.iter().any(|image| root.keeps.contains(&image.manifest)),
        })
    }

    /// Whether the policy is about it at all.
    pub(crate) fn is_meant(&self, policy: &Policy) -> bool {
        match policy.scope {
            Scope::Garbage => false,
            Scope::Dangling => self.is_dangling(),
            Scope::Unused => true,
        }
    }

    /// Whether the policy may take this name away, goals aside.
    pub(crate) fn may_go(&self, policy: &Policy, root: usize, name: &NameRoot) -> bool {
        let used = policy.evict != Some(Evict::Blobs) && self.is_used();
        let young = policy.unused_since.is_some_and(|moment| self.last_use() >= moment);
        let built = policy.until.is_some_and(|moment| {
            let dates = || self.images.iter().filter_map(|image| image.created);
            dates().count() == 0 || dates().any(|at| at >= moment)
        });
        let labelled = policy.labels.iter().all(|filter| {
            let has = self.images.iter().any(|image| {
                let labels: BTreeMap<String, String> = serde_json::from_str(&image.labels).unwrap();
                labels
                    .get(&filter.key)
                    .is_some_and(|value| filter.value.as_ref().is_none_or(|wanted| wanted == value))
            });
            has != filter.negated
        });
        if !self.is_meant(policy) || used || young || built || !labelled || name.owner != LOCAL || name.pinned
        {
            return false;
        }
        if name.name == self.text() {
            return policy.names.is_empty();
        }
        let reference: Reference = name.name.parse().unwrap();
        let named = policy.names.is_empty() || policy.names.iter().any(|pattern| pattern.fits(&reference));
        let protected = policy.protect.iter().any(|pattern| pattern.fits(&reference));
        named && !protected && !self.is_among_last(policy, root, name, &reference)
    }

    fn is_among_last(&self, policy: &Policy, root: usize, name: &NameRoot, reference: &Reference) -> bool {
        let Some(count) = policy.keep_last else { return false };
        let created = |target: &Target<'_>| target.images.iter().filter_map(|image| image.created).max();
        let mine = (name.updated_at, created(self), root);
        let mut newer = 0;
        for target in targets(self.world) {
            for (other, found) in &target.names {
                let Ok(found_reference) = found.name.parse::<Reference>() else { continue };
                let same = found.owner == LOCAL
                    && found.name != target.text()
                    && found_reference.repository() == reference.repository();
                newer += usize::from(same && (found.updated_at, created(&target), *other) > mine);
            }
        }
        newer < count
    }
}

/// The names that tell where layers can be fetched again that were evicted, and that an image needs which stays.
fn sources(world: &World, policy: &Policy) -> BTreeSet<usize> {
    let targets = targets(world);
    let goes = |target: &Target<'_>, root: usize, name: &NameRoot| target.may_go(policy, root, name);
    let evicted = |image: &ImageFacts| -> BTreeSet<usize> {
        image.layers.iter().filter(|layer| layer.blob.is_none()).filter_map(|layer| layer.tree).collect()
    };
    let mut going = BTreeSet::new();
    for target in &targets {
        if target.names.iter().all(|(root, name)| goes(target, *root, name)) {
            going.extend(target.names.iter().map(|(root, _)| *root));
        }
    }
    let staying = kept(world, &going);
    let mut needed = BTreeSet::new();
    for image in world.graph.images.iter().filter(|image| staying.contains(&image.manifest)) {
        needed.extend(evicted(image));
    }
    let mut sources = BTreeSet::new();
    for target in &targets {
        let pulled = target.names.iter().filter(|(_, name)| name.pulled_at.is_some());
        let has = target.images.iter().any(|image| !evicted(image).is_disjoint(&needed));
        if has && pulled.clone().all(|(root, name)| goes(target, *root, name)) {
            sources.extend(pulled.map(|(root, _)| *root));
        }
    }
    sources
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn without_a_goal_all_names_go_that_may(world in worlds(), policy in policies()) {
        let policy = Policy { goal: None, evict: None, ..policy };
        let plan = plan(&world.graph, &policy);
        let mut expected = BTreeSet::new();
        for target in targets(&world) {
            expected.extend(target.names.iter().filter(|(root, name)| target.may_go(&policy, *root, name)).map(|(root, _)| *root));
        }
        let expected: BTreeSet<usize> = expected.difference(&sources(&world, &policy)).copied().collect();
        prop_assert_eq!(removed(&world, &plan), expected);
        prop_assert_eq!(plan.goal, None);
    }

    #[test]
    fn a_goal_is_reached_with_the_images_that_were_not_used_for_the_longest_time(
        world in worlds(),
        policy in policies(),
        goal in prop_oneof![(0..150_u64).prop_map(Goal::Free), (0..250_u64).prop_map(Goal::KeepStorage)],
    ) {
        let policy = Policy { goal: Some(goal), evict: None, ..policy };
        let plan = plan(&world.graph, &policy);
        let counts = |kind| !matches!(goal, Goal::KeepStorage(_)) || kind != NodeKind::Written;
        let sum = |objects: BTreeSet<usize>| {
            size(&world, &objects.into_iter().filter(|index| counts(world.graph.nodes[*index].kind)).collect()).allocated
        };
        let all = sum((0..world.graph.nodes.len()).collect());
        let wanted = match goal {
            Goal::Free(bytes) => bytes,
            Goal::KeepStorage(bytes) => all.saturating_sub(bytes),
        };
        let freed = |gone: &BTreeSet<usize>| all - sum(kept(&world, gone));
        let mut gone = BTreeSet::new();
        let sources = sources(&world, &policy);
        for target in targets(&world) {
            let may_go = |root: usize, name: &NameRoot| target.may_go(&policy, root, name) && !sources.contains(&root);
            let whole = target.names.iter().all(|(root, name)| may_go(*root, name));
            if whole && freed(&gone) < wanted {
                gone.extend(target.names.iter().map(|(root, _)| *root));
            }
        }
        prop_assert_eq!(&removed(&world, &plan), &gone);
        prop_assert_eq!(plan.goal, Some((wanted, freed(&gone))));
    }

    #[test]
    fn what_goes_anyway_is_not_freed_once_more(world in worlds(), policy in policies(), anyway in 0..90_u64, more in 0..90_u64) {
        let free = |bytes| Policy { goal: Some(Goal::Free(bytes)), ..policy.clone() };
        let (beside, alone) = (plan_beside(&world.graph, &free(anyway + more), anyway), plan(&world.graph, &free(more)));
        prop_assert_eq!(beside.goal.unwrap().1, alone.goal.unwrap().1 + anyway);
        prop_assert_eq!((beside.names, beside.victims, beside.kept), (alone.names, alone.victims, alone.kept));
        let keep = Policy { goal: Some(Goal::KeepStorage(more)), ..policy };
        prop_assert_eq!(plan_beside(&world.graph, &keep, anyway), plan(&world.graph, &keep));
    }

    #[test]
    fn names_go_in_the_order_of_last_use(world in worlds(), policy in policies()) {
        let plan = plan(&world.graph, &policy);
        let mut before = 0;
        for name in &plan.names {
            let target = targets(&world);
            let target = target.iter().find(|target| target.names.iter().any(|(_, found)| found.name == name.untag.name && found.owner == name.untag.owner)).unwrap();
            prop_assert!(target.last_use() >= before);
            before = target.last_use();
            match name.reason {
                Reason::Dangling => prop_assert!(target.is_dangling()),
                Reason::Unused { since } => prop_assert_eq!(since, before),
            }
            let Unless::Used { images, .. } = &name.untag.unless else { panic!("{name:?}") };
            prop_assert_eq!(images.len(), target.images.len());
        }
    }

    #[test]
    fn whatever_a_policy_is_about_goes_or_has_a_reason_to_stay(world in worlds(), policy in policies()) {
        let plan = plan(&world.graph, &policy);
        let gone = removed(&world, &plan);
        for target in targets(&world) {
            let names: Vec<&String> = target.names.iter().map(|(_, name)| &name.name).collect();
            let stay = target.names.iter().filter(|(root, _)| !gone.contains(root));
            let stay: Vec<&String> = stay.map(|(_, name)| &name.name).collect();
            let told: Vec<_> = plan.kept.iter().filter(|kept| kept.names.iter().eq(stay.iter().copied())).collect();
            let whole = target.names.iter().all(|(root, _)| gone.contains(root));
            let alike = targets(&world);
            let alike = alike.iter().filter(|other| other.names.iter().map(|(_, name)| &name.name).eq(names.iter().copied()));
            if alike.count() > 1 {
                // Of two owners; a plan tells names only.
                continue;
            }
            prop_assert!(told.len() <= 1);
            prop_assert!(told.iter().all(|kept| !kept.stays.is_empty()));
            if !target.is_meant(&policy) {
                prop_assert!(told.is_empty());
            } else if policy.evict.is_none() {
                prop_assert_eq!(told.is_empty(), whole, "{:?}", names);
            }
            if let [told] = &told[..] {
                for stays in &told.stays {
                    let one = |wanted: &str| stay.iter().any(|name| layerstore_gc::familiar(name) == wanted);
                    let right = match stays {
                        Stays::Container(_) | Stays::Mounted(_) | Stays::Leased | Stays::Snapshot { .. } => target.is_used(),
                        Stays::Pinned(name) | Stays::AmongLast(name) | Stays::NotNamed(name) | Stays::Protected(name, _) => one(name),
                        Stays::Owner(owner) => owner == "other",
                        Stays::UsedAt(at) => *at == target.last_use(),
                        Stays::Enough => policy.goal.is_some(),
                        _ => true,
                    };
                    prop_assert!(right, "{:?}", stays);
                }
            }
        }
    }
}

/// An index of one image for each of these platforms and dates, and nothing else.
fn until(moment: i64, images: &[(&str, Option<i64>)]) -> layerstore_gc::Plan {
    use layerstore_store::{GraphBuilder, Size};
    let mut builder = GraphBuilder::default();
    let blob = |builder: &mut GraphBuilder, text: &str| {
        let digest = crate::world::digest(text);
        (builder.node(Object::Blob(digest.clone()), Size::default(), NodeKind::Blob), digest)
    };
    let index = blob(&mut builder, "index").0;
    for (number, (platform, created)) in images.iter().enumerate() {
        let (manifest, config) = blob(&mut builder, &number.to_string());
        builder.manifest(index, manifest);
        builder.image(ImageFacts {
            manifest,
            config,
            platform: (*platform).to_owned(),
            created: *created,
            labels: "{}".to_owned(),
            last_used_at: None,
            chain: None,
            chain_key: None,
            layers: Vec::new(),
        });
    }
    let name = NameRoot {
        owner: LOCAL.to_owned(),
        name: "docker.io/library/a:1".to_owned(),
        created_at: 0,
        updated_at: 0,
        pulled_at: None,
        pinned: false,
    };
    builder.root(RootKind::Name(name), vec![index]);
    plan(&builder.build(), &Policy { scope: Scope::Unused, until: Some(moment), ..Policy::default() })
}

#[test]
fn an_index_is_as_old_as_the_newest_of_its_platforms_that_says_it() {
    let platform = "linux/amd64";
    for images in [
        &[(platform, Some(1)), (platform, None)][..],
        &[(platform, Some(1)), ("unknown/unknown", None)],
        &[("unknown/unknown", Some(9)), (platform, Some(4))],
    ] {
        assert_eq!(until(5, images).names.len(), 1, "{images:?}");
    }
    for (images, built) in [
        (&[(platform, None)][..], None),
        (&[("unknown/unknown", Some(1))], None),
        (&[(platform, Some(1)), (platform, Some(5))], Some(5)),
    ] {
        let plan = until(5, images);
        assert_eq!(plan.kept[0].stays, [Stays::BuiltAt(built)]);
        assert!(plan.names.is_empty());
    }
}
