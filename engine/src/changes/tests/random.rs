//! Any two stacks, against what two mounts show.

use layerstore_testkit::tree::{Entry, Snapshot};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::rootfs::trees::Tree;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Dir,
    Opaque,
    File(u8),
    Symlink(u8),
    Fifo,
    Whiteout,
}

#[derive(Debug, Clone)]
pub(crate) struct Choice {
    path: String,
    kind: Kind,
    mode: bool,
    time: bool,
    xattr: bool,
}

pub(crate) fn choice() -> impl Strategy<Value = Choice> {
    let path = vec(prop_oneof![Just("a"), Just("a-"), Just("b")], 1..4).prop_map(|names| names.join("/"));
    let kind = prop_oneof![
        3 => Just(Kind::Dir),
        1 => Just(Kind::Opaque),
        4 => (0..3u8).prop_map(Kind::File),
        1 => (0..2u8).prop_map(Kind::Symlink),
        1 => Just(Kind::Fifo),
        2 => Just(Kind::Whiteout),
    ];
    let rare = || prop::bool::weighted(0.15);
    (path, kind, rare(), rare(), rare()).prop_map(|(path, kind, mode, time, xattr)| Choice {
        path,
        kind,
        mode,
        time,
        xattr,
    })
}

/// Makes what of the choices is possible.
pub(crate) fn build(tree: &Tree, choices: &[Choice]) {
    let mut directories = Vec::new();
    for choice in choices {
        let (path, kind) = (&choice.path, choice.kind);
        let ways: Vec<&str> = path.match_indices('/').map(|(slash, _)| &path[..slash]).collect();
        let is = |way: &&str| tree.path(way).symlink_metadata().map(|found| found.is_dir());
        if tree.path(path).symlink_metadata().is_ok() || ways.iter().any(|way| is(way).is_ok_and(|dir| !dir))
        {
            continue;
        }
        for way in ways {
            if is(&way).is_err() {
                tree.dir(way);
                directories.push((way, 0));
            }
        }
        _ = match kind {
            Kind::Dir => tree.dir(path),
            Kind::Opaque => tree.dir(path).opaque(path),
            Kind::File(data) => tree.file(path, ["", "one", "two"][usize::from(data)]),
            Kind::Symlink(target) => tree.symlink(path, ["a", "b"][usize::from(target)]),
            Kind::Fifo => tree.node(path, FileType::Fifo, 0),
            Kind::Whiteout => tree.whiteout(path),
        };
        let can_have = !matches!(kind, Kind::Whiteout | Kind::Symlink(_) | Kind::Fifo);
        if choice.mode && can_have {
            tree.mode(path, 0o700);
        }
        if choice.xattr && can_have {
            tree.xattr(path, "user.k", "v");
        }
        if choice.time {
            tree.time(path, 1);
        }
        if matches!(kind, Kind::Dir | Kind::Opaque) {
            directories.push((path, i64::from(choice.time)));
        }
    }
    for (path, time) in directories.into_iter().rev() {
        tree.time(path, time);
    }
}

/// The same, from all that is in both.
fn naive(before: &Snapshot, after: &Snapshot, parents: Parents) -> Vec<String> {
    let plain = |entry: &Entry| Entry { link_of: None, ..entry.clone() };
    let is_dir = |entry: &Entry| entry.kind == FileType::Directory;
    let mut found: Vec<(Vec<u8>, char)> = Vec::new();
    for (path, entry) in &after.entries {
        match before.entries.get(path) {
            None => found.push((path.clone(), 'A')),
            Some(old) if plain(old) != plain(entry) => found.push((path.clone(), 'C')),
            Some(_) => {}
        }
    }
    for path in before.entries.keys().filter(|path| !after.entries.contains_key(*path)) {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        // Only what was in a directory that is still there.
        if after.entries.get(&path[..slash.unwrap_or(0)]).is_some_and(is_dir) {
            found.push((path.clone(), 'D'));
        }
    }
    if parents == Parents::All {
        for (path, _) in found.clone() {
            for (slash, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                if found.iter().all(|(known, _)| known != &path[..slash]) {
                    found.push((path[..slash].to_vec(), 'C'));
                }
            }
        }
    }
    found.retain(|(path, _)| !path.is_empty());
    found.sort_by(|(a, _), (b, _)| a.split(|byte| *byte == b'/').cmp(b.split(|byte| *byte == b'/')));
    found.iter().map(|(path, kind)| format!("{kind} /{}", path.escape_ascii())).collect()
}

const STACKS: [(&[&str], &[&str]); 6] = [
    (&["z"], &["y", "z"]),
    (&["y", "z"], &["x", "y", "z"]),
    (&["y", "z"], &["x", "z"]),
    (&["x", "y"], &["z"]),
    (&["x", "y", "z"], &["y", "x", "z"]),
    (&["x"], &["y"]),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn privileged_any_two_stacks_differ_as_their_mounts_do(
        layers in [vec(choice(), 0..12), vec(choice(), 0..12), vec(choice(), 0..12)],
    ) {
        if !require::root() {
            return Ok(());
        }
        let trees = Trees::new();
        for (name, choices) in ["x", "y", "z"].iter().zip(&layers) {
            build(&trees.tree(name), choices);
        }
        for (before, after) in STACKS {
            let [old, new] = [before, after].map(|stack| Snapshot::of(trees.mount(None, stack).path()));
            for parents in [Parents::All, Parents::Changed] {
                prop_assert_eq!(lines(&trees, before, after, parents), naive(&old, &new, parents));
            }
        }
    }
}
