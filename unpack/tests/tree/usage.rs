//! What a tree takes is what `du` says, to the byte.

use std::process::Command;

use layerstore_tar::Segment;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The bytes that `du` counts.
fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-B1", "-s"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Few names, so that entries replace each other.
fn path() -> impl Strategy<Value = String> {
    vec(prop_oneof!["[abc]", "[a-c]{200}"], 1..4).prop_map(|names| names.join("/"))
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(0), 1..20usize, 4090..4100usize, 1..100_000usize].prop_map(|length| vec![7; length])
}

fn sparse(path: &str, runs: &[(u64, u64)]) -> Item {
    let mut end = 0;
    let map: Vec<_> = runs
        .iter()
        .map(|&(hole, len)| {
            let segment = Segment { offset: end + hole, len };
            end = segment.offset + len;
            segment
        })
        .collect();
    let archived_size = map.iter().map(|segment| segment.len).sum();
    let entry = Entry { size: end, archived_size, sparse: Some(map), ..Entry::regular(path.as_bytes(), 0) };
    Item { data: vec![7; usize::try_from(archived_size).unwrap()], ..entry.into() }
}

fn item() -> impl Strategy<Value = Vec<Item>> {
    let runs = vec((1..100_000u64, 1..5000u64), 0..12);
    prop_oneof![
        4 => (path(), data()).prop_map(|(path, data)| vec![file(path, data)]),
        2 => path().prop_map(|path| vec![dir(path)]),
        2 => (path(), runs).prop_map(|(path, runs)| vec![sparse(&path, &runs)]),
        2 => (path(), 1..400usize).prop_map(|(path, length)| vec![symlink(path, "t".repeat(length))]),
        1 => path().prop_map(|path| vec![fifo(path)]),
        2 => (path(), path()).prop_map(|(path, target)| vec![hard_link(path, target)]),
        1 => path().prop_map(|path| vec![whiteout(&path)]),
        // More than fits beside the inode.
        2 => (path(), 1..3000usize).prop_map(|(path, length)| {
            vec![file(path, "data").xattr("user.x", vec![b'x'; length])]
        }),
        1 => (path(), 1..3000usize).prop_map(|(path, length)| vec![dir(path).xattr("user.x", vec![b'x'; length])]),
        // More names than one block of a directory has room for.
        1 => (path(), 1..60usize).prop_map(|(path, count)| {
            (0..count).map(|number| file(format!("{path}/{number:0>200}"), "")).collect()
        }),
    ]
}

fn whiteout(path: &str) -> Item {
    match path.rsplit_once('/') {
        Some((directory, name)) => file(format!("{directory}/.wh.{name}"), ""),
        None => file(format!(".wh.{path}"), ""),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_takes_what_du_says(items in vec(item(), 0..12)) {
        // What is below a file or links to itself is refused.
        if let Ok(tree) = unpack_with(&tar(&items.concat()), None, &options()) {
            prop_assert_eq!(tree.usage().allocated, du(&tree.path("")));
            prop_assert_eq!(tree.usage(), tree.counted());
        }
    }
}

/// Of a file in many pieces the filesystem keeps a list, for which it takes blocks when it writes the file.
#[test]
fn what_is_written_back_later_is_counted_too() {
    let runs: Vec<_> = (0..600).map(|number| (4096 * (1 + number % 7), 4096)).collect();
    let tree = apply(&[sparse("f", &runs), sparse("g", &runs[..5])]);
    let counted = tree.usage();
    std::fs::File::open(tree.path("f")).unwrap().sync_all().unwrap();
    std::fs::File::open(tree.path("g")).unwrap().sync_all().unwrap();
    assert_eq!(counted, tree.counted());
}

/// Where directories take no blocks, but long links do.
#[test]
fn other_filesystems_have_other_blocks() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let long = symlink("l", "x".repeat(3000));
    let stream = tar(&[dir_with_many("d"), vec![long, file("f", "data").xattr("user.x", "y")]].concat());
    let tree = unpack_in(dir, &stream, None, &options()).unwrap();
    assert_eq!(tree.usage().allocated, du(&tree.path("")));
}

#[test]
fn a_directory_has_the_blocks_of_its_names() {
    let tree = apply(&dir_with_many("d"));
    assert_eq!(tree.usage().allocated, du(&tree.path("")));
    assert_eq!(tree.usage(), tree.counted());
}

fn dir_with_many(path: &str) -> Vec<Item> {
    (0..1000).map(|number| file(format!("{path}/{number:0>100}"), "")).collect()
}
