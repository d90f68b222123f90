//! A disk without a free byte, or a free inode, is looked at and cleared by the store's own commands.

use std::fs;
use std::path::Path;

use layerstore_testkit::disk::Disk;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;

use super::incompressible;
use crate::small_layer;

const BIG: [&str; 2] = ["localhost/big:1", "localhost/big:2"];
const SMALL: &str = "localhost/small:1";

/// What takes the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filler {
    /// A file that the store does not know.
    Stranger,
    /// The same, and it goes on: what becomes free between two commands is taken.
    GreedyStranger,
    /// A container.
    Container,
    /// Empty files that the store does not know.
    Files,
}

impl Filler {
    fn fill(self, disk: &Disk, store: &Sandbox) {
        match self {
            Self::Stranger | Self::GreedyStranger => drop(disk.fill("stranger")),
            Self::Container => {
                let mounted = store.ok(["mount", "work"]);
                let path = Path::new(mounted.trim_end()).join("noise");
                let mut file = fs::File::create(path).unwrap();
                std::io::copy(&mut std::io::repeat(7), &mut file).unwrap_err();
                drop(file);
                store.ok(["umount", "work"]);
                // The overlay has left some bytes of the last block, and unmounting may have freed some.
                disk.fill("rest");
            }
            Self::Files => disk.fill_with_files("files"),
        }
        if self != Self::Files {
            // Blocks of files that are gone come free when the filesystem gets round to it.
            let full = (0..20).any(|_| disk.free() == 0 || disk.fill("stranger") == 0 && disk.free() <= 4096);
            assert!(full, "{self:?} leaves {} bytes", disk.free());
        }
    }
}

/// A store with images and containers on the disk.
fn store_on(disk: &Disk) -> Sandbox {
    let store = Sandbox::at(&disk.path().join("store")).unwrap();
    for (i, name) in BIG.iter().enumerate() {
        let layers = [small_layer("base"), incompressible(2 + i), small_layer("top")];
        store.load_bytes(&Layout::of(name, &Image::new(layers)).archive());
    }
    store.load_bytes(&Layout::of(SMALL, &Image::new([small_layer("base"), small_layer("small")])).archive());
    for name in ["work", "other"] {
        store.ok(["create", "--name", name, SMALL]);
    }
    // Something for the collection.
    let layout = Layout::of("localhost/dangling:1", &Image::new([small_layer("dangling")]));
    store.load_bytes(&layout.archive());
    store.execute("DELETE FROM reference WHERE name = 'localhost/dangling:1'");
    // The test's own SQLite has deleted the files of the log.
    store.ok(["images"]);
    store
}

fn assert_cleared(disk: &Disk, filler: Filler) {
    let store = store_on(disk);
    filler.fill(disk, &store);
    let again = || {
        if filler == Filler::GreedyStranger {
            filler.fill(disk, &store);
        }
    };
    for line in
        [&["images"][..], &["ps", "-a"], &["info"], &["df"], &["df", "--no-scan"], &["gc", "--dry-run"]]
    {
        store.ok(line);
        again();
    }
    assert_eq!(store.ok(["images", "-q"]).lines().count(), 3);
    again();
    store.ok(["rmi", BIG[0]]);
    let free = disk.free();
    assert!(filler == Filler::Files || free > 2 << 20, "{free} bytes are free after rmi");
    again();
    store.ok(["gc"]);
    again();
    store.ok(["rm", "work"]);
    again();
    store.ok(["rmi", BIG[1]]);
    let free = disk.free();
    assert!(filler == Filler::Files || free > 3 << 20, "{free} bytes are free after rmi");
    store.ok(["gc"]);
    assert_eq!(store.sql("PRAGMA integrity_check"), ["ok"]);
    store.assert_no_leftovers();
    store.assert_nothing_to_collect();
    // What is left works, and there is room for more.
    assert_eq!(store.ok(["cat", SMALL, "/small"]), "small");
    assert_eq!(store.ok(["diff", "other"]), "");
    let layers = [small_layer("base"), incompressible(1)];
    store.load_bytes(&Layout::of("localhost/next:1", &Image::new(layers)).archive());
    store.ok(["ls", "localhost/next:1"]);
    store.assert_no_leftovers();
}

#[test]
fn privileged_an_ext4_that_others_have_filled_is_cleared() {
    if require::root() {
        assert_cleared(&Disk::ext4(40), Filler::Stranger);
    }
}

#[test]
fn privileged_a_tmpfs_that_others_have_filled_is_cleared() {
    if require::root() {
        assert_cleared(&Disk::tmpfs(40), Filler::Stranger);
    }
}

/// Also with blocks smaller than a page, as small disks have them.
#[test]
fn privileged_a_disk_that_is_filled_again_and_again_is_cleared() {
    for size in ["1024", "2048", "4096"] {
        if require::root() {
            assert_cleared(&Disk::ext4_with(40, &["-b", size]), Filler::GreedyStranger);
        }
    }
}

/// As in a store of an earlier version, which has no space for what SQLite needs. That may be an error, but nobody is killed.
#[test]
fn privileged_with_next_to_no_space_nobody_dies() {
    if !require::root() {
        return;
    }
    let disk = Disk::ext4_with(40, &["-b", "1024"]);
    let store = store_on(&disk);
    for crumbs in [0, 8, 12, 16, 24, 48] {
        for name in ["reserve", "layerstore.db-shm", "layerstore.db-wal"] {
            drop(fs::remove_file(store.root().join(name)));
        }
        fs::write(disk.path().join("crumbs"), vec![7; crumbs << 10]).unwrap();
        Filler::Stranger.fill(&disk, &store);
        fs::remove_file(disk.path().join("crumbs")).unwrap();
        for line in ["images", "df", "gc"] {
            let run = store.run(line.split(' '));
            assert!([0, 6].contains(&run.code), "{crumbs} KiB: {run}");
        }
        fs::remove_file(disk.path().join("stranger")).unwrap();
        store.ok(["images"]);
    }
    store.ok(["rmi", BIG[1]]);
    store.ok(["gc"]);
    assert_eq!(store.sql("PRAGMA integrity_check"), ["ok"]);
    store.assert_nothing_to_collect();
}

#[test]
fn privileged_an_ext4_that_a_container_has_filled_is_cleared() {
    if require::root() {
        assert_cleared(&Disk::ext4(40), Filler::Container);
    }
}

#[test]
fn privileged_a_tmpfs_that_a_container_has_filled_is_cleared() {
    if require::root() {
        assert_cleared(&Disk::tmpfs(40), Filler::Container);
    }
}

#[test]
fn privileged_a_disk_without_an_inode_is_cleared() {
    if require::root() {
        assert_cleared(&Disk::ext4_with(40, &["-N", "300"]), Filler::Files);
    }
}
