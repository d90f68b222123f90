use super::*;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Two directories with files of the same names: `top/a`, which is walked, and `out`. In `top/a/b` lies what is met when
/// something is to be moved.
struct Moving {
    dir: tempfile::TempDir,
}

const NAMES: usize = 40;

impl Moving {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["top/a/b", "out"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let moving = Self { dir };
        fs::write(moving.path("top/a/b/file"), "").unwrap();
        moving.fill("top/a");
        moving.fill("out");
        moving
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn inode(&self, name: &str) -> u64 {
        fs::symlink_metadata(self.path(name)).unwrap().ino()
    }

    fn fill(&self, directory: &str) {
        for name in 0..NAMES {
            fs::write(self.path(directory).join(name.to_string()), "").unwrap();
        }
    }

    fn inodes(&self, directory: &str) -> HashSet<u64> {
        (0..NAMES).map(|name| self.inode(&format!("{directory}/{name}"))).collect()
    }

    /// Walks, and does something when it is in the directory at the bottom. Returns what it has met.
    fn walk(&self, moves: impl Fn()) -> HashSet<u64> {
        let (mut met, bottom) = (HashSet::new(), self.inode("top/a/b/file"));
        let home = Home::of(self.dir.path()).unwrap();
        home.walk(&self.path("top"), |found| {
            met.insert(found.stx_ino);
            if found.stx_ino == bottom {
                moves();
            }
        })
        .unwrap();
        met
    }
}

#[test]
fn a_walk_goes_on_where_it_was_when_the_directory_it_is_in_is_moved_out() {
    let moving = Moving::new();
    let (mine, others) = (moving.inodes("top/a"), moving.inodes("out"));
    let met = moving.walk(|| fs::rename(moving.path("top/a/b"), moving.path("out/b")).unwrap());
    assert!(met.is_superset(&mine) && met.is_disjoint(&others));
}

#[test]
fn a_walk_does_not_go_into_what_has_taken_the_place_of_a_directory() {
    let moving = Moving::new();
    let others = std::cell::RefCell::default();
    let met = moving.walk(|| {
        fs::rename(moving.path("top/a/b"), moving.path("out/b")).unwrap();
        fs::rename(moving.path("top/a"), moving.path("out/a")).unwrap();
        fs::create_dir(moving.path("top/a")).unwrap();
        moving.fill("top/a");
        others.replace(moving.inodes("top/a"));
    });
    assert!(met.is_disjoint(&others.borrow()) && met.is_disjoint(&moving.inodes("out")));
}

/// Links are shown and not followed, directories with several names for that are none, and only files have a length.
#[test]
fn what_is_met_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("top/inner/innermost")).unwrap();
    fs::create_dir(path("out")).unwrap();
    fs::write(path("out/file"), "x").unwrap();
    fs::write(path("top/file"), "four").unwrap();
    fs::hard_link(path("top/file"), path("top/again")).unwrap();
    std::os::unix::fs::symlink(path("out"), path("top/link")).unwrap();
    let home = Home::of(dir.path()).unwrap();
    let (mut linked, mut apparent, mut kinds) = (0, 0, Vec::new());
    home.walk(&path("top"), |found| {
        linked += usize::from(is_linked(found));
        apparent += size_of(found).apparent;
        kinds.push(kind_of(found));
    })
    .unwrap();
    let count = |kind| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!((kinds.len(), linked, apparent), (6, 2, 8));
    assert_eq!((count(FileType::Directory), count(FileType::Symlink)), (3, 1));
    // No link leads anywhere, be it as the top, in a directory or as one of the store's own.
    let top = home.open(CWD, path("top")).unwrap().unwrap();
    assert!(home.open(CWD, path("top/link")).unwrap().is_none());
    assert!(home.open_in(&top, "link").unwrap().is_none() && home.open_in(&top, "inner").unwrap().is_some());
    assert!(home.open_in(&top, "file").unwrap().is_none() && home.open_in(&top, "none").unwrap().is_none());
}

#[test]
fn a_directory_is_untouched_only_at_the_very_time_that_marks_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::of(dir.path()).unwrap();
    let untouched = || match home.look(CWD, dir.path()).unwrap() {
        Found::Here(found) => is_untouched(&found),
        other => panic!("{other:?}"),
    };
    assert!(!untouched());
    mark_untouched(dir.path()).unwrap();
    assert!(untouched());
    let last_modification = Timespec { tv_sec: 0, tv_nsec: 1 };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    utimensat(CWD, dir.path(), &Timestamps { last_access, last_modification }, AtFlags::empty()).unwrap();
    assert!(!untouched());
}

#[test]
fn privileged_another_mount_is_elsewhere() {
    use rustix::mount::{UnmountFlags, mount_bind, unmount};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [own, bound] = ["own", "bound"].map(|name| dir.path().join(name));
    fs::create_dir_all(own.join("inner")).unwrap();
    fs::create_dir(&bound).unwrap();
    // The same filesystem, and another mount.
    mount_bind(&own, &bound).unwrap();
    let home = Home::of(dir.path()).unwrap();
    let looked = home.look(CWD, &bound).unwrap();
    let above = home.open(CWD, dir.path()).unwrap().unwrap();
    let opened = [home.open(CWD, &bound).unwrap(), home.open_in(&above, "bound").unwrap()];
    let mut met = 0;
    home.walk(dir.path(), |_| met += 1).unwrap();
    let opened = opened.map(|opened| opened.is_some());
    unmount(&bound, UnmountFlags::DETACH).unwrap();
    assert!(matches!(looked, Found::Elsewhere) && opened == [false, false]);
    assert_eq!(met, 3, "the top, and what is in one of the two");
}
