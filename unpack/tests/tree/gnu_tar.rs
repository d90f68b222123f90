//! The same as GNU tar on what is valid, and nothing bad on what is not.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use layerstore_testkit::require;
use proptest::prelude::*;

use super::*;

/// One entry to be, by choices that always make something valid.
#[derive(Debug, Clone)]
struct Choice {
    kind: u8,
    path: Vec<u8>,
    target: u8,
    mode: u32,
    owner: (u64, u64),
    mtime: (i64, u32),
    xattr: Option<Vec<u8>>,
    data: Vec<u8>,
}

fn choice() -> impl Strategy<Value = Choice> {
    (
        0..6u8,
        prop::collection::vec(0..4u8, 1..4),
        any::<u8>(),
        0..0o10000u32,
        (0..5000u64, prop_oneof![0..3u64, Just(3_000_000_000)]),
        (-1_000_000_000..10_000_000_000i64, 0..1_000_000_000u32),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        prop::collection::vec(any::<u8>(), 0..9),
    )
        .prop_map(|(kind, path, target, mode, owner, mtime, xattr, data)| Choice {
            kind,
            path,
            target,
            mode,
            owner,
            mtime,
            xattr,
            data: data.repeat(200),
        })
}

/// A list of entries in which each directory comes before what is in it, and nothing takes the place of a
/// directory, where GNU tar has options of its own.
fn items(choices: &[Choice]) -> Vec<Item> {
    let mut is_directory: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    let mut items = vec![dir("./").mtime(1, 1)];
    for choice in choices {
        let names: Vec<&[u8]> = choice
            .path
            .iter()
            .map(|name| [&b"a"[..], b"b\xff", b"c c", b"d\n"][usize::from(*name)])
            .collect();
        let path = names.join(&b'/');
        let above: Vec<_> = (1..names.len()).map(|count| names[..count].join(&b'/')).collect();
        if above.iter().any(|directory| is_directory.get(directory) == Some(&false)) {
            continue;
        }
        for directory in above {
            if is_directory.insert(directory.clone(), true).is_none() {
                items.push(dir(directory).mtime(2, 2));
            }
        }
        let wants_directory = choice.kind == 0;
        if is_directory.get(&path).is_some_and(|is| *is != wants_directory) {
            continue;
        }
        let files: Vec<_> =
            is_directory.iter().filter(|(_, is)| !**is).map(|(path, _)| path.clone()).collect();
        let mut item = match choice.kind {
            0 => dir(&path),
            1 if !files.is_empty() => {
                let target = &files[usize::from(choice.target) % files.len()];
                hard_link(&path, target)
            }
            2 => {
                symlink(&path, [&b"a"[..], b"../x", b"/etc/passwd", b"\xff"][usize::from(choice.target % 4)])
            }
            3 => fifo(&path),
            _ => file(&path, &choice.data),
        };
        is_directory.insert(path, wants_directory);
        item = item
            .mode(choice.mode)
            .owner(choice.owner.0, choice.owner.1)
            .mtime(choice.mtime.0, choice.mtime.1);
        if let (Some(value), 0 | 4 | 5) = (&choice.xattr, choice.kind) {
            item = item.xattr("user.k", value);
        }
        items.push(item);
    }
    items
}

fn by_gnu_tar(stream: &[u8]) -> (tempfile::TempDir, Snapshot) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new("tar")
        .args(["--extract", "--preserve-permissions", "--numeric-owner", "--same-owner", "--xattrs"])
        .args([
            "--xattrs-include=*",
            "--warning=no-timestamp",
            "--delay-directory-restore",
            "--absolute-names",
            "--file=-",
            "-C",
        ])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stream).unwrap();
    assert!(child.wait().unwrap().success());
    let snapshot = Snapshot::of(dir.path());
    (dir, snapshot)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn privileged_trees_are_those_of_gnu_tar(choices in prop::collection::vec(choice(), 0..25)) {
        if !require::root() {
            return Ok(());
        }
        let items = items(&choices);
        let tree = apply(&items);
        let (_dir, expected) = by_gnu_tar(&tar(&items));
        let found = tree.snapshot().compare(&expected);
        prop_assert!(found.is_empty(), "{}", found.iter().map(|d| format!("{d}\n")).collect::<String>());
    }

    #[test]
    fn damaged_archives_do_no_harm(
        choices in prop::collection::vec(choice(), 1..12),
        changes in prop::collection::vec((any::<u16>(), 0..512usize, any::<u8>()), 1..8),
        fix in any::<bool>(),
    ) {
        let mut stream = tar(&[hostile(), items(&choices)].concat());
        let blocks = stream.len() / 512;
        for (block, at, value) in changes {
            let start = usize::from(block) % blocks * 512;
            // Rather where headers say something.
            let at = if value & 1 == 0 { at % 160 } else { at };
            stream[start + at] = value;
            if fix {
                seal(&mut stream[start..start + 512]);
            }
        }
        // `unpack_in` checks what is around the tree.
        let result = unpack_with(&stream, Some(1), &options());
        let threaded = unpack_with(&stream, None, &options());
        prop_assert_eq!(result.is_ok(), threaded.is_ok());
        // Others may not look into every directory.
        if let (Ok(one), Ok(other), true) = (result, threaded, own_ids().0 == 0) {
            one.snapshot().assert_same(&other.snapshot());
        }
    }
}

fn hostile() -> Vec<Item> {
    vec![
        symlink("l", "../canary"),
        symlink("m", "/"),
        file("l/file", "changed"),
        file("m/.wh.x", ""),
        dir("l/dir"),
    ]
}

/// Makes the checksum of a header right.
fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
