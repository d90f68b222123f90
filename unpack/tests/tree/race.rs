//! Another process changes the tree during the unpack.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

const TREE: &str = "LAYERSTORE_TEST_TREE";

/// A layer that comes back to the same few directories again and again.
fn layer() -> Vec<u8> {
    let mut items = vec![dir("a"), dir("a/b"), dir("c"), symlink("to-a", "a/b")];
    for i in 0..4000 {
        items.push(file(format!("a/b/file{}", i % 7), "changed").mode(0o777));
        items.push(dir("a/b/dir").mode(0o700).xattr("user.changed", "1"));
        items.push(file(format!("a/new{i}/.wh.file"), ""));
        items.push(file("to-a/file", "changed").mode(0o777));
        items.push(hard_link(format!("c/hard{}", i % 7), "a/b/file"));
        items.push(file("a/b/dir/.wh..wh..opq", ""));
        items.push(if i % 3 == 0 { file("a/b/dir", "") } else { symlink("a/b/file", "dir") });
    }
    tar(&items)
}

#[test]
fn a_process_that_swaps_directories_and_links_gains_nothing() {
    let stream = layer();
    let (mut swaps, mut rounds) = (0, 0);
    // Most rounds end soon, with an error about what was moved; how soon is a matter of luck.
    while (swaps <= 1000 || rounds < 20) && rounds < 400 {
        rounds += 1;
        let beside = tempfile::tempdir().unwrap();
        let target = beside.path().join("tree");
        std::fs::create_dir(&target).unwrap();
        let mut swapper = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "race::the_process_that_swaps", "--ignored", "--nocapture"])
            .env(TREE, &target)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(swapper.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "the process that swaps has ended");
        }
        // `unpack_in` looks at what is beside the tree.
        drop(unpack_in(beside, &stream, None, &options()));
        drop(swapper.stdin.take());
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert!(swapper.wait().unwrap().success());
        let count = rest.lines().find_map(|line| line.split("swaps: ").nth(1)).expect("it counts");
        swaps += count.trim().parse::<u64>().unwrap();
    }
    assert!(swaps > 1000, "only {swaps} swaps in {rounds} rounds");
}

#[test]
#[ignore = "run by a_process_that_swaps_directories_and_links_gains_nothing"]
fn the_process_that_swaps() {
    let tree = PathBuf::from(std::env::var_os(TREE).expect("it is told where"));
    let over = std::thread::spawn(|| {
        let mut rest = Vec::new();
        std::io::stdin().read_to_end(&mut rest).unwrap();
    });
    let at = |name: &str| tree.join(name);
    // Each stands for a directory of the tree by turns, and leads out of it.
    drop(std::os::unix::fs::symlink("../canary", at("x")));
    drop(std::os::unix::fs::symlink("../../canary", at("y")));
    println!("ready");
    let mut swaps = 0_u64;
    while !over.is_finished() {
        for (one, other) in
            [("a", "x"), ("c", "x"), ("a/b", "y"), ("a/b/dir", "c"), ("a", "c"), ("a/b/dir", "y")]
        {
            let swap = || renameat_with(CWD, at(one), CWD, at(other), RenameFlags::EXCHANGE);
            if swap().is_ok() {
                swaps += 1;
                std::thread::yield_now();
                swap().unwrap_or(());
            }
        }
    }
    println!("swaps: {swaps}");
}
