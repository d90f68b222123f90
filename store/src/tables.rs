//! Who has trees mounted, whatever made the mounts: the mount tables of all mount namespaces.
//!
//! A runtime copies the mounts of the host into a namespace of its own, so that a container's root filesystem is still in
//! use when it is unmounted here. The kernel shows the mount table of each process (`/proc/PID/mountinfo`, proc(5)), with
//! the directories of an overlay in its options, as they were given. `mount(2)` has no room for the names of all layers
//! below; of those mounts only the writable tree is found, and the layers have the rows of the mount and the snapshot.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::layout::TreeId;
use crate::overlay::{is_own_overlay, shows_ours, unescape};

/// The mount tables of all processes, each that looks the same once.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    tables: Vec<Table>,
    /// Whether there may be processes of which nothing is known.
    partial: bool,
}

/// What a process sees.
#[derive(Debug)]
struct Table {
    /// Its mount namespace. Whose that is may be kept from this process, while its table never is.
    namespace: Option<i64>,
    pid: u32,
    text: Vec<u8>,
}

/// Who has a tree mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    namespace: Option<i64>,
    pid: u32,
    /// Where, as the process sees it.
    point: PathBuf,
}

impl Tables {
    /// Reads them. Processes that end meanwhile are left out.
    pub(crate) fn read() -> Self {
        let mut found = Self::default();
        let Ok(entries) = fs::read_dir("/proc") else { return Self { partial: true, ..found } };
        let (mut seen, mut hidden) = (HashSet::new(), Vec::new());
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let path = entry.path();
            // A process with another root directory sees only what is mounted below that.
            let view = fs::metadata(path.join("ns/mnt")).and_then(|namespace| {
                let root = fs::metadata(path.join("root"))?;
                Ok((namespace.ino().cast_signed(), root.dev(), root.ino()))
            });
            match view {
                Ok(view) if seen.contains(&view) => {}
                Ok(view) => {
                    // A process that is about to end has none any more; another that sees the same may.
                    if let Ok(text) = fs::read(path.join("mountinfo"))
                        && !text.is_empty()
                    {
                        seen.insert(view);
                        found.tables.push(Table { namespace: Some(view.0), pid, text });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden.push((pid, path)),
                Err(_) => {}
            }
        }
        let mut texts = HashSet::new();
        for (pid, path) in hidden {
            match fs::read(path.join("mountinfo")) {
                Ok(text) if !text.is_empty() && !texts.contains(&text) => {
                    texts.insert(text.clone());
                    found.tables.push(Table { namespace: None, pid, text });
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found.partial = true,
                _ => {}
            }
        }
        found
    }

    /// A process that sees a mount of this tree, be it as a layer, writable or by itself.
    pub(crate) fn user(&self, tree: &TreeId) -> Option<User> {
        self.find(tree, |_| true)
    }

    /// The same for all trees that are `wanted`, in one pass.
    pub(crate) fn users(&self, wanted: impl Fn(&TreeId) -> bool) -> HashMap<TreeId, User> {
        let mut found = HashMap::new();
        for table in &self.tables {
            for line in table.text.split(|byte| *byte == b'\n') {
                for tree in trees(line).filter(&wanted) {
                    found.entry(tree).or_insert_with(|| User {
                        namespace: table.namespace,
                        pid: table.pid,
                        point: mount_point(line),
                    });
                }
            }
        }
        found
    }

    /// A process that has this tree in its root filesystem, as one in a container has. Other namespaces may have copies of
    /// a mount that nobody uses.
    pub(crate) fn rooted(&self, tree: &TreeId) -> Option<User> {
        self.find(tree, |point| point == Path::new("/"))
    }

    /// A process that has something mounted at `path` or below it, or has mounted something of what is there elsewhere.
    /// `path` is absolute and free of symbolic links.
    pub(crate) fn user_of(&self, path: &Path) -> Option<User> {
        let own = fs::read("/proc/self/mountinfo").ok().and_then(|table| origin(&table, path));
        self.tables.iter().find_map(|table| {
            let point = table.text.split(|byte| *byte == b'\n').find_map(|line| {
                let point = mount_point(line);
                let from_here = own.as_ref().is_some_and(|(device, within)| {
                    nth(line, 2) == device.as_slice() && path_of(nth(line, 3)).starts_with(within)
                });
                (point.starts_with(path) || from_here).then_some(point)
            })?;
            Some(User { namespace: table.namespace, pid: table.pid, point })
        })
    }

    fn find(&self, tree: &TreeId, is_it: impl Fn(&Path) -> bool) -> Option<User> {
        let wanted = format!("/{tree}/diff");
        self.tables.iter().filter(|table| contains(&table.text, wanted.as_bytes())).find_map(|table| {
            let mut lines = table.text.split(|byte| *byte == b'\n');
            let point = lines.find_map(|line| {
                let point = contains(line, wanted.as_bytes()).then(|| mount_point(line))?;
                is_it(&point).then_some(point)
            })?;
            Some(User { namespace: table.namespace, pid: table.pid, point })
        })
    }

    /// Whether a namespace is still there in which something of the store was mounted at `target`: it has a process, or is
    /// kept by a mount of its file. Of processes whose namespace cannot be told it is known what they have mounted at
    /// `target`.
    ///
    /// The kernel gives the number of a namespace that has gone to the next one that is made. With `mounted`, the trees of
    /// what is mounted for sure, a namespace in which none of them is seen is such another.
    pub(crate) fn has_namespace(&self, namespace: i64, target: &Path, mounted: Option<&[TreeId]>) -> bool {
        let kept = format!(" mnt:[{namespace}] ");
        self.partial
            || self.tables.iter().any(|table| {
                let is_it = match table.namespace {
                    Some(other) => {
                        other == namespace && mounted.is_none_or(|trees| may_show(&table.text, target, trees))
                    }
                    None => shows_ours(&table.text, target),
                };
                is_it || contains(&table.text, kept.as_bytes())
            })
    }
}

impl User {
    /// What it is called, for a person in the mount namespace `namespace`: the directory, if it is mounted there, and
    /// otherwise the process, its ID and the name of its program.
    pub(crate) fn describe(&self, namespace: i64) -> String {
        let Self { pid, point, .. } = self;
        if self.namespace == Some(namespace) && point != Path::new("/") {
            return format!("a mount at {}", point.display());
        }
        match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", printable(name.trim_end())),
            Err(_) => format!("process {pid}"),
        }
    }
}

/// A program in a container calls itself what it likes.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The fifth field.
fn mount_point(line: &[u8]) -> PathBuf {
    path_of(nth(line, 4))
}

/// The device and the path in its filesystem of `path`, by the mount that holds it: the last of those whose mount point is
/// nearest.
fn origin(table: &[u8], path: &Path) -> Option<(Vec<u8>, PathBuf)> {
    let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let holds = lines.filter(|line| path.starts_with(mount_point(line)));
    let line = holds.max_by_key(|line| mount_point(line).iter().count())?;
    let rest = path.strip_prefix(mount_point(line)).ok()?;
    Some((nth(line, 2).to_vec(), path_of(nth(line, 3)).join(rest)))
}

fn nth(line: &[u8], index: usize) -> &[u8] {
    line.split(|byte| *byte == b' ').nth(index).unwrap_or_default()
}

fn path_of(field: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    std::ffi::OsString::from_vec(unescape(field)).into()
}

/// What stands in `/ID/diff`.
fn trees(line: &[u8]) -> impl Iterator<Item = TreeId> {
    let ends = line.windows(5).enumerate().filter(|(_, window)| *window == b"/diff");
    ends.filter_map(|(end, _)| {
        let before = &line[..end];
        let start = before.iter().rposition(|byte| *byte == b'/')?;
        std::str::from_utf8(&before[start + 1..]).ok()?.parse().ok()
    })
}

/// Whether any of these trees may be mounted in a namespace, at `target` or wherever that was moved. Not all overlays tell of
/// what they are made.
fn may_show(table: &[u8], target: &Path, wanted: &[TreeId]) -> bool {
    shows_ours(table, target)
        || table.split(|byte| *byte == b'\n').any(|line| {
            let mut shown = trees(line).peekable();
            match shown.peek() {
                Some(_) => shown.any(|tree| wanted.contains(&tree)),
                None => is_own_overlay(line),
            }
        })
}

fn contains(table: &[u8], wanted: &[u8]) -> bool {
    table.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(namespace: Option<i64>, line: &str) -> Tables {
        Tables { tables: vec![Table { namespace, pid: 7, text: line.into() }], partial: false }
    }

    #[test]
    fn this_process_has_a_namespace_and_no_such_tree() {
        let tables = Tables::read();
        assert!(tables.has_namespace(crate::clock::mount_namespace().unwrap(), Path::new("/none"), None));
        assert!(!tables.has_namespace(1, Path::new("/none"), None), "it is gone, whoever cannot be seen");
        assert_eq!(tables.user(&TreeId::random()), None);
    }

    #[test]
    fn trees_are_found_in_the_options_of_overlays_and_as_roots_of_binds() {
        let tree: TreeId = "abcdefgh".parse().unwrap();
        let other: TreeId = "abcdefgi".parse().unwrap();
        for line in [
            "36 25 0:31 / /m rw - overlay layerstore rw,lowerdir+=/x/diff,upperdir=/abcdefgh/diff,workdir=/abcdefgh/work",
            "36 25 0:31 / /m ro - overlay layerstore ro,lowerdir=/s/overlay2/abcdefgh/diff:/s/overlay2/x/diff",
            "36 25 0:31 / /m rw - overlay layerstore rw,lowerdir=0:1,upperdir=u/abcdefgh/diff,workdir=u/abcdefgh/work",
            "36 25 8:1 /s/overlay2/abcdefgh/diff /m ro - ext4 /dev/vda ro",
        ] {
            let tables = of(Some(1), line);
            let found = User { namespace: Some(1), pid: 7, point: "/m".into() };
            assert_eq!(tables.users(|id| *id == tree), [(tree.clone(), found.clone())].into(), "{line}");
            assert_eq!(tables.users(|id| *id == other), HashMap::new(), "{line}");
            assert_eq!((tables.user(&tree), tables.user(&other)), (Some(found), None), "{line}");
            assert_eq!(tables.rooted(&tree), None, "{line}");
            let rooted = of(None, &line.replace(" /m ", " / "));
            let found = User { namespace: None, pid: 7, point: "/".into() };
            assert_eq!((rooted.rooted(&tree), rooted.rooted(&other)), (Some(found), None), "{line}");
        }
    }

    #[test]
    fn what_is_below_a_path_and_what_was_mounted_from_it_is_found() {
        let table = b"30 1 8:1 / / rw - ext4 /dev/a rw\n31 30 8:2 /sub /var rw - ext4 /dev/b rw";
        let expected = (b"8:2".to_vec(), PathBuf::from("/sub/store/x"));
        assert_eq!(origin(table, Path::new("/var/store/x")), Some(expected));
        let used = |line: &str| of(Some(1), line).user_of(Path::new("/nowhere/store/x")).is_some();
        assert!(used("36 25 0:31 / /nowhere/store/x/y rw - tmpfs t rw"));
        assert!(!used("36 25 0:31 / /nowhere/store/xy rw - tmpfs t rw"));
    }

    #[test]
    fn a_namespace_that_only_a_file_keeps_is_there() {
        let line = "40 25 0:4 mnt:[4026532201] /run/ns rw - nsfs nsfs rw";
        let (tables, nowhere) = (of(Some(1), line), Path::new("/none"));
        let has = |namespace| tables.has_namespace(namespace, nowhere, Some(&[]));
        assert!(has(4_026_532_201) && !has(1) && !has(2));
        assert!(tables.has_namespace(1, nowhere, None), "nothing has been mounted there yet");
    }

    #[test]
    fn a_namespace_that_got_the_number_of_another_is_told_from_it() {
        let trees: [TreeId; 2] = ["abcdefgh".parse().unwrap(), "abcdefgi".parse().unwrap()];
        for (line, is_it) in [
            ("36 25 0:31 / /m rw - overlay layerstore rw,lowerdir+=/x/diff,upperdir=/s/other123/diff", true),
            (
                "36 25 0:31 / / rw - overlay layerstore rw,lowerdir+=/s/other123/diff,upperdir=/s/abcdefgi/diff",
                true,
            ),
            ("36 25 8:1 /s/overlay2/abcdefgh/diff / ro - ext4 /dev/vda ro", true),
            ("36 25 0:31 / / ro - overlay layerstore ro,lowerdir=0:1:2", true),
            ("36 25 0:31 / /n rw - overlay layerstore rw,lowerdir+=/x/diff,upperdir=/s/other123/diff", false),
            ("36 25 0:31 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/l/A,upperdir=/u", false),
            ("36 25 8:1 / / ro - ext4 /dev/vda ro", false),
        ] {
            let has = |mounted| of(Some(1), line).has_namespace(1, Path::new("/m"), mounted);
            assert_eq!((has(None), has(Some(&trees))), (true, is_it), "{line}");
        }
    }

    /// What a process has mounted can always be read.
    #[test]
    fn a_namespace_that_cannot_be_told_counts_by_what_is_mounted_there() {
        let tables = of(None, "36 25 0:31 / /m rw - overlay layerstore rw,lowerdir+=/x/diff");
        let has = |target: &str| tables.has_namespace(2, Path::new(target), Some(&[]));
        assert!(has("/m") && !has("/other"));
    }

    #[test]
    fn users_are_described_as_who_asks_can_find_them() {
        let user = |point: &str| User { namespace: Some(1), pid: std::process::id(), point: point.into() };
        assert_eq!(user("/m").describe(1), "a mount at /m");
        for text in [user("/m").describe(2), user("/").describe(1)] {
            assert!(text.starts_with(&format!("process {} (", std::process::id())), "{text}");
        }
        assert_eq!(printable("a\u{1b}b"), "a?b");
    }
}
