//! A tree becomes a layer and the layer the same tree.

use std::process::Command;

use layerstore_testkit::require;
use proptest::prelude::*;

use super::build::{Menu, build, choices};
use super::*;

type Marks = BTreeMap<(Vec<u8>, String), Vec<u8>>;

/// What a layer says of the tree: whiteouts have no attributes, and none where there is nothing to hide; of
/// overlayfs's attributes only opaque marks and escaped names.
fn meaning(root: &Path) -> (Snapshot, Marks) {
    let mut snapshot = Snapshot::of(root);
    let mut marks = marks(root, &snapshot);
    marks.retain(|(_, name), value| {
        (name == "trusted.overlay.opaque" && value == b"y") || name.starts_with("trusted.overlay.overlay.")
    });
    let opaque = |path: &[u8]| marks.contains_key(&(path.to_vec(), "trusted.overlay.opaque".to_owned()));
    snapshot.entries.retain(|path, entry| {
        let whiteout = entry.kind == FileType::CharacterDevice && entry.rdev == 0;
        if whiteout {
            (entry.mode, entry.uid, entry.gid, entry.mtime) = (0, 0, 0, (0, 0));
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        !(whiteout && ends.chain([0]).any(|end| opaque(&path[..end])))
    });
    (snapshot, marks)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::with_cases(120) })]

    #[test]
    fn privileged_a_layer_of_a_tree_gives_the_tree(choices in choices()) {
        if !require::root() {
            return Ok(());
        }
        let upper = Upper::new();
        build(upper.0.path(), &choices, Menu::All);
        let layer = upper.diff();
        let unpacked = layer.unpack();
        let (expected, expected_marks) = meaning(upper.0.path());
        let (found, found_marks) = meaning(unpacked.path());
        let differences = expected.compare(&found);
        prop_assert!(differences.is_empty(), "{}", differences.iter().map(|d| format!("{d}\n")).collect::<String>());
        prop_assert_eq!(expected_marks, found_marks);

        // And again the same layer, although inode numbers and access times are others.
        let again = layer_of(unpacked.path(), &options()).unwrap();
        prop_assert!(again.stream == layer.stream, "{:?}\n{:?}", layer.listing(), again.listing());
        let copy = tempfile::tempdir().unwrap();
        let status = Command::new("cp").args(["-a", "-T"]).args([upper.0.path(), copy.path()]).status().unwrap();
        prop_assert!(status.success());
        prop_assert!(layer_of(copy.path(), &options()).unwrap().stream == layer.stream, "of a copy");
    }
}
