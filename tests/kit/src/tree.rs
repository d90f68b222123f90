//! An exact record of a directory tree, and the difference between two.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// Everything about a tree that a program inside it can observe, except access and change times, inode
/// numbers, link counts and the sizes of directories, which depend on the file system and not on the image.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// By path relative to the root, without a leading slash; the root itself is the empty path.
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

/// One file of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: FileType,
    /// Permission, set-ID and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last modification: seconds since 1970 and nanoseconds.
    pub mtime: (i64, i64),
    /// Bytes of a regular file; 0 for anything else.
    pub size: u64,
    /// Target of a symbolic link; empty for anything else.
    pub target: Vec<u8>,
    /// Device number of a device node; 0 for anything else.
    pub rdev: u64,
    /// Extended attributes, except those with which overlayfs marks its own directories.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// SHA-256 of a regular file's contents, in hexadecimal; empty for anything else.
    pub sha256: String,
    /// The first path, in byte order, that is a hard link to the same file, when it is not this one.
    pub link_of: Option<Vec<u8>>,
}

impl Snapshot {
    /// Records the tree at `root`. Nothing is followed: neither symbolic links nor mount points' contents
    /// differ from what a program with this root directory would see.
    pub fn of(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        let dir = rustix::fs::openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .unwrap_or_else(|e| panic!("cannot open {}: {e}", root.display()));
        let stat = rustix::fs::fstat(&dir).unwrap();
        let mut walk = Walk { entries: BTreeMap::new(), inodes: HashMap::new() };
        walk.entries.insert(Vec::new(), entry(&stat, &fd_path(&dir, b".")));
        walk.directory(&dir, &[]);
        walk.finish()
    }

    /// Makes the root's modification time equal in every snapshot, for images none of whose layers lists it.
    #[must_use]
    pub fn without_root_mtime(mut self) -> Self {
        if let Some(root) = self.entries.get_mut(&[] as &[u8]) {
            root.mtime = (0, 0);
        }
        self
    }

    /// The entry at `path`, which is relative to the root.
    #[track_caller]
    pub fn at(&self, path: &str) -> &Entry {
        self.entries.get(path.as_bytes()).unwrap_or_else(|| panic!("there is no `{path}` in the tree"))
    }

    /// Whether there is anything at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path.as_bytes())
    }

    /// Every way in which `other` differs from this tree.
    pub fn compare(&self, other: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        for (path, left) in &self.entries {
            match other.entries.get(path) {
                None => found.push(Difference::only(path, "missing on the right", left)),
                Some(right) => left.compare(right, path, &mut found),
            }
        }
        for (path, right) in &other.entries {
            if !self.entries.contains_key(path) {
                found.push(Difference::only(path, "missing on the left", right));
            }
        }
        found
    }

    /// Panics with a list of the differences unless both trees are the same.
    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        let found = self.compare(other);
        let shown: Vec<_> = found.iter().take(40).map(|d| format!("\n  {d}")).collect();
        assert!(
            found.is_empty(),
            "{} differences between the trees (of {} and {} entries):{}",
            found.len(),
            self.entries.len(),
            other.entries.len(),
            shown.concat(),
        );
    }
}

impl Entry {
    fn compare(&self, other: &Self, path: &[u8], found: &mut Vec<Difference>) {
        let mut field = |name, left: String, right: String| {
            if left != right {
                found.push(Difference { path: path.to_vec(), what: name, left, right });
            }
        };
        field("type", format!("{:?}", self.kind), format!("{:?}", other.kind));
        field("mode", format!("{:04o}", self.mode), format!("{:04o}", other.mode));
        field("owner", format!("{}:{}", self.uid, self.gid), format!("{}:{}", other.uid, other.gid));
        let time = |(s, ns): (i64, i64)| format!("{s}.{ns:09}");
        field("mtime", time(self.mtime), time(other.mtime));
        field("size", self.size.to_string(), other.size.to_string());
        field("target", text(&self.target), text(&other.target));
        field("device", format!("{:#x}", self.rdev), format!("{:#x}", other.rdev));
        field("xattrs", attributes(&self.xattrs), attributes(&other.xattrs));
        field("contents", self.sha256.clone(), other.sha256.clone());
        let link = |l: &Option<Vec<u8>>| l.as_deref().map_or_else(|| "none".to_owned(), text);
        field("hard link to", link(&self.link_of), link(&other.link_of));
    }
}

/// One way in which two trees differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, relative to the root.
    pub path: Vec<u8>,
    /// Which property differs, or which side lacks the path.
    pub what: &'static str,
    /// The property in the left tree.
    pub left: String,
    /// The property in the right tree.
    pub right: String,
}

impl Difference {
    fn only(path: &[u8], what: &'static str, entry: &Entry) -> Self {
        Self { path: path.to_vec(), what, left: format!("{:?}", entry.kind), right: String::new() }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}: {}", text(&self.path), self.what)?;
        if self.right.is_empty() {
            write!(f, " ({})", self.left)
        } else {
            write!(f, " {} / {}", self.left, self.right)
        }
    }
}

struct Walk {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Paths of each file that is not a directory, by device and inode number.
    inodes: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Walk {
    fn directory(&mut self, fd: &OwnedFd, path: &[u8]) {
        let names: Vec<Vec<u8>> = Dir::read_from(fd)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_bytes().to_vec())
            .filter(|name| name != b"." && name != b"..")
            .collect();
        for name in names {
            let stat = match rustix::fs::statat(fd, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                // overlayfs lists whiteouts of a directory that only one layer has, but nobody can open them.
                Err(Errno::NOENT) => continue,
                found => found.unwrap(),
            };
            let mut entry = entry(&stat, &fd_path(fd, &name));
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            let open = |flags| {
                rustix::fs::openat(fd, &name[..], flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                    .unwrap_or_else(|e| panic!("cannot open {}: {e}", text(&child)))
            };
            match entry.kind {
                FileType::Directory => self.directory(&open(OFlags::DIRECTORY), &child),
                FileType::RegularFile => entry.sha256 = contents(File::from(open(OFlags::RDONLY))),
                FileType::Symlink => {
                    entry.target = rustix::fs::readlinkat(fd, &name[..], Vec::new()).unwrap().into_bytes();
                }
                _ => {}
            }
            if entry.kind != FileType::Directory {
                self.inodes.entry((stat.st_dev, stat.st_ino)).or_default().push(child.clone());
            }
            self.entries.insert(child, entry);
        }
    }

    fn finish(mut self) -> Snapshot {
        for mut paths in self.inodes.into_values() {
            paths.sort();
            let (first, rest) = paths.split_first().unwrap();
            for path in rest {
                self.entries.get_mut(path).unwrap().link_of = Some(first.clone());
            }
        }
        Snapshot { entries: self.entries }
    }
}

/// `path` reaches the file through a directory's descriptor, so that a path of any length works.
fn entry(stat: &Stat, path: &[u8]) -> Entry {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    Entry {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap()),
        size: if kind == FileType::RegularFile { u64::try_from(stat.st_size).unwrap() } else { 0 },
        target: Vec::new(),
        rdev: if device { stat.st_rdev } else { 0 },
        xattrs: xattrs(path),
        sha256: String::new(),
        link_of: None,
    }
}

fn fd_path(dir: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn xattrs(path: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(e) => panic!("cannot list the attributes of {}: {e}", text(path)),
    };
    let mut found = BTreeMap::new();
    let mut value = vec![0; 65536];
    for name in names[..length].split(|b| *b == 0) {
        if name.is_empty() || name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        found.insert(name.to_vec(), value[..length].to_vec());
    }
    found
}

fn contents(mut file: File) -> String {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = file.read(&mut buffer).unwrap();
        if n == 0 {
            return crate::hex(&hash.finalize());
        }
        hash.update(&buffer[..n]);
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn attributes(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    let list: Vec<_> = xattrs.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(" ") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("d/e")).unwrap();
        std::fs::write(at("d/f"), "one").unwrap();
        std::fs::hard_link(at("d/f"), at("d/e/g")).unwrap();
        symlink("../x", at("d/s")).unwrap();
        for path in ["d/f", "d/e", "d", "."] {
            set_mtime(&at(path), 1_700_000_000, 5);
        }
        rustix::fs::utimensat(CWD, at("d/s"), &times(7, 8), AtFlags::SYMLINK_NOFOLLOW).unwrap();
        dir
    }

    fn times(s: i64, ns: i64) -> rustix::fs::Timestamps {
        let t = rustix::fs::Timespec { tv_sec: s, tv_nsec: ns };
        rustix::fs::Timestamps { last_access: t, last_modification: t }
    }

    fn set_mtime(path: &Path, s: i64, ns: i64) {
        rustix::fs::utimensat(CWD, path, &times(s, ns), AtFlags::empty()).unwrap();
    }

    fn report(change: impl FnOnce(&Path)) -> Vec<String> {
        let (left, right) = (sample(), sample());
        change(right.path());
        Snapshot::of(left.path())
            .compare(&Snapshot::of(right.path()))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn equal_trees_have_no_differences() {
        assert_eq!(report(|_| {}), Vec::<String>::new());
        let snapshot = Snapshot::of(sample().path());
        assert_eq!(snapshot.at("d/s").target, b"../x");
        assert_eq!(snapshot.at("d/f").link_of.as_deref(), Some(&b"d/e/g"[..]));
        assert_eq!(snapshot.at("d/e").mtime, (1_700_000_000, 5));
    }

    #[test]
    fn each_kind_of_difference_is_named() {
        let mode =
            |p: &Path| std::fs::set_permissions(p.join("d"), PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(report(mode), ["/d: mode 0755 / 0700"]);
        assert_eq!(
            report(|p| set_mtime(&p.join("d/e"), 1_700_000_000, 6)),
            ["/d/e: mtime 1700000000.000000005 / 1700000000.000000006"]
        );
        let content = report(|p| {
            std::fs::write(p.join("d/f"), "two").unwrap();
            set_mtime(&p.join("d/f"), 1_700_000_000, 5);
        });
        assert_eq!(content.len(), 2, "both names of the file: {content:?}");
        assert!(content[0].starts_with("/d/e/g: contents "));
        let unlinked = report(|p| {
            std::fs::remove_file(p.join("d/e/g")).unwrap();
            std::fs::write(p.join("d/e/g"), "one").unwrap();
            set_mtime(&p.join("d/e/g"), 1_700_000_000, 5);
            set_mtime(&p.join("d/e"), 1_700_000_000, 5);
        });
        assert_eq!(unlinked, ["/d/f: hard link to d/e/g / none"]);
        let gone = report(|p| {
            std::fs::remove_file(p.join("d/s")).unwrap();
            set_mtime(&p.join("d"), 1_700_000_000, 5);
        });
        assert_eq!(gone, ["/d/s: missing on the right (Symlink)"]);
        let attribute = report(|p| {
            rustix::fs::setxattr(p.join("d/e"), "user.k", b"v", rustix::fs::XattrFlags::empty()).unwrap();
        });
        assert_eq!(attribute, ["/d/e: xattrs none / user.k=v"]);
    }
}
