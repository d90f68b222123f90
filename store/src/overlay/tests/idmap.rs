//! Owners in mounts with an ID map, and on disk.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{chown, lchown};
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_change};

use super::*;

const HOST: u32 = 100_000;

fn map() -> MountOptions {
    let id_map = Some(IdMap::parse("0:100000:65536", "0:200000:65536").unwrap());
    MountOptions { id_map, ..MountOptions::default() }
}

/// Runs a shell script as root of a user namespace with the same map, without privileges outside of it.
fn as_container(script: &str, directory: &Path) {
    let output = Command::new("setpriv")
        .args(["--reuid", "100000", "--regid", "200000", "--clear-groups", "--bounding-set", "-all"])
        .args(["--inh-caps", "-all", "sh", "-ec", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn privileged_owners_are_the_images_on_disk_and_the_hosts_in_the_mount() {
    if !require::root() {
        return;
    }
    let ways = ways(&map());
    for (count, way) in [3, 200].iter().flat_map(|count| ways.iter().map(move |way| (*count, *way))) {
        let fixture = Fixture::with_root(AWKWARD);
        let stack = fixture.stack(fixture.lowers(count));
        let lower = &stack.lowers[1];
        chown(lower.join("shared"), Some(0), Some(0)).unwrap();
        fs::create_dir(lower.join("dir")).unwrap();
        fs::write(lower.join("dir/of-1000"), "").unwrap();
        chown(lower.join("dir/of-1000"), Some(1000), Some(7)).unwrap();
        fs::write(lower.join("unmapped"), "").unwrap();
        lchown(lower.join("unmapped"), Some(70_000), Some(70_000)).unwrap();

        fixture.mount_by(way, &stack, &map());
        assert_eq!(fixture.owner("."), (HOST, 2 * HOST), "{way:?}");
        assert_eq!(fixture.owner("shared"), (HOST, 2 * HOST));
        assert_eq!(fixture.owner("dir/of-1000"), (HOST + 1000, 2 * HOST + 7));
        assert_eq!(fixture.owner("unmapped"), (65534, 65534));
        as_container(
            "echo new > new; mkdir d; ln -s x l; echo more >> shared; mv new d/new; rm -r dir; mkdir dir",
            &fixture.target,
        );
        assert_eq!(fixture.owner("d/new"), (HOST, 2 * HOST));
        fixture.unmount();
        let upper = stack.upper.as_ref().unwrap();
        for name in [".", "d", "d/new", "l", "shared", "dir"] {
            assert_eq!(owner(&upper.diff().join(name)), (0, 0), "{name}");
        }
        assert_eq!(owner(&upper.work().join("work")), (0, 0));
        assert_eq!(owner(&lower.join("shared")), (0, 0));
        // What is there is mounted without a map as well.
        fixture.mount(&stack, &MountOptions::default()).unwrap();
        assert_eq!(fixture.owner("d/new"), (0, 0));
        fixture.unmount();
    }
}

#[test]
fn privileged_read_only_mounts_and_single_trees_are_mapped() {
    if !require::root() {
        return;
    }
    for api in [MountApi::Newest, MountApi::Classic] {
        let fixture = Fixture::new();
        let options = MountOptions { api, ..map() };
        let stack = fixture.stack(fixture.lowers(2));
        let read_only = Stack { upper: None, ..stack.clone() };
        let single = Stack { lowers: vec![stack.lowers[0].clone()], ..read_only.clone() };
        let bound = Stack { plain: true, ..single.clone() };
        let alone = Stack { lowers: vec![], ..stack.clone() };
        for stack in [read_only, single, bound] {
            fixture.mount(&stack, &options).unwrap();
            assert_eq!(fixture.owner("shared"), (HOST, 2 * HOST), "{stack:?}");
            assert!(fs::write(fixture.target.join("shared"), "").is_err());
            fixture.unmount();
        }
        fixture.mount(&alone, &options).unwrap();
        as_container("echo new > new", &fixture.target);
        fixture.unmount();
        assert_eq!(owner(&alone.upper.as_ref().unwrap().diff().join("new")), (0, 0));
    }
}

#[test]
fn privileged_a_map_can_be_that_of_a_namespace_which_exists() {
    if !require::root() {
        return;
    }
    let fixture = Fixture::new();
    let stack = fixture.stack(fixture.lowers(2));
    let namespace: OwnedFd = namespace::user_namespace("0 5000 10\n", "0 6000 10\n").unwrap();
    let id_map = Some(IdMap::from_namespace(namespace));
    fixture.mount(&stack, &MountOptions { id_map, ..MountOptions::default() }).unwrap();
    assert_eq!(fixture.owner("shared"), (5000, 6000));
    fixture.unmount();
}

#[test]
fn privileged_nothing_is_left_of_an_id_mapped_mount() {
    if !require::root() {
        return;
    }
    // A process of its own, where no other test opens files or mounts anything.
    let test = "overlay::tests::idmap::mounts_many_times";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--quiet"])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "run by privileged_nothing_is_left_of_an_id_mapped_mount"]
fn mounts_many_times() {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).unwrap();
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero().to_string();
    assert_ne!(namespace("self"), namespace(&parent), "this would change the mounts of everybody");
    // Whatever is mounted in a copy of this namespace comes here as well, unless that is prevented.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::SHARED).unwrap();
    let fixture = Fixture::new();
    let stack = fixture.stack(fixture.lowers(3));
    // Copies of what other tests have mounted go with the directories that these remove.
    let own = fixture.target.parent().unwrap().to_str().unwrap();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap().matches(own).count();
    let before = (open_files(), mounts());
    for way in ways(&map()).into_iter().cycle().take(30) {
        fixture.mount_by(way, &stack, &map());
        fixture.unmount();
    }
    assert_eq!((open_files(), mounts()), before);
    let children = format!("/proc/self/task/{}/children", std::process::id());
    assert_eq!(fs::read_to_string(children).unwrap(), "");
    assert_eq!((rustix::process::geteuid().as_raw(), owner(&fixture.upper("new").tree)), (0, (0, 0)));
}

#[test]
fn privileged_a_writable_tree_outside_the_map_is_refused() {
    if !require::root() {
        return;
    }
    let fixture = Fixture::new();
    let stack = fixture.stack(fixture.lowers(2));
    let id_map = Some(IdMap::parse("1000:100000:10", "1000:100000:10").unwrap());
    let error = fixture.mount(&stack, &MountOptions { id_map, ..MountOptions::default() }).unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }), "{error:?}");
    assert!(error.to_string().contains("the map has no ID for the owner"), "{error}");
    assert!(!fixture.is_mounted());
}
