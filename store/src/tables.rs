//! Who has trees mounted, whatever made the mounts: the mount tables of all mount namespaces.
//!
//! A runtime copies the mounts of the host into a namespace of its own, so that a container's root filesystem is still in
//! use when it is unmounted here. The kernel shows the mount table of each process (`/proc/PID/mountinfo`, proc(5)), with
//! the directories of an overlay in its options, except for `lowerdir` of `mount(2)` with relative names; those mounts are
//! the store's own, and have a row.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::layout::TreeId;

/// The mount tables of all namespaces that this process can see.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// By namespace: one of its processes, and what that sees.
    tables: HashMap<u64, (u32, Vec<u8>)>,
    /// Whether there may be processes that cannot be seen.
    partial: bool,
}

impl Tables {
    /// Reads them. Processes that end meanwhile are left out, and so are those of others if this one is not root.
    pub(crate) fn read() -> Self {
        let mut found = Self::default();
        let Ok(entries) = fs::read_dir("/proc") else { return Self { partial: true, ..found } };
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let path = entry.path();
            let namespace = match fs::metadata(path.join("ns/mnt")) {
                Ok(namespace) => namespace.ino(),
                Err(error) => {
                    found.partial |= error.kind() == std::io::ErrorKind::PermissionDenied;
                    continue;
                }
            };
            if found.tables.contains_key(&namespace) {
                continue;
            }
            // A process that is about to end has none any more; another of its namespace may.
            if let Ok(table) = fs::read(path.join("mountinfo"))
                && !table.is_empty()
            {
                found.tables.insert(namespace, (pid, table));
            }
        }
        found
    }

    /// Who sees a mount of this tree, be it as a layer, writable or by itself.
    pub(crate) fn user(&self, tree: &TreeId) -> Option<User> {
        self.find(tree, |_| true)
    }

    /// Who has this tree in its root filesystem, as a process in a container has. Other namespaces may have copies of a
    /// mount that nobody uses.
    pub(crate) fn rooted(&self, tree: &TreeId) -> Option<User> {
        self.find(tree, |point| point == b"/")
    }

    fn find(&self, tree: &TreeId, is_wanted: impl Fn(&[u8]) -> bool) -> Option<User> {
        let wanted = format!("/{tree}/diff");
        for (pid, table) in self.tables.values() {
            if !contains(table, wanted.as_bytes()) {
                continue;
            }
            for line in table.split(|byte| *byte == b'\n').filter(|line| contains(line, wanted.as_bytes())) {
                // The mount point is the fifth field.
                let point = line.split(|byte| *byte == b' ').nth(4).unwrap_or_default();
                if is_wanted(point) {
                    return Some(User { pid: *pid, point: String::from_utf8_lossy(point).into_owned() });
                }
            }
        }
        None
    }

    /// Whether a namespace is still there: it has a process, or is kept by a mount of its file. If not all processes can
    /// be seen, it is taken to be.
    pub(crate) fn has_namespace(&self, namespace: i64) -> bool {
        let kept = format!(" mnt:[{namespace}] ");
        self.partial
            || self.tables.contains_key(&namespace.cast_unsigned())
            || self.tables.values().any(|(_, table)| contains(table, kept.as_bytes()))
    }
}

/// A mount of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// A process that sees it.
    pid: u32,
    /// Where it sees it.
    point: String,
}

impl User {
    /// For a person.
    pub(crate) fn describe(&self) -> String {
        let Self { pid, point } = self;
        let namespace = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|found| found.ino()).ok();
        if namespace("self").is_some_and(|own| namespace(&pid.to_string()) == Some(own)) {
            return format!("a mount at {point}");
        }
        match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({}), which has it mounted at {point}", name.trim_end()),
            Err(_) => format!("process {pid}, which has it mounted at {point}"),
        }
    }
}

fn contains(table: &[u8], wanted: &[u8]) -> bool {
    table.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_namespace_and_no_such_tree() {
        let tables = Tables::read();
        assert!(tables.has_namespace(crate::clock::mount_namespace().unwrap()));
        assert_eq!(tables.user(&TreeId::random()), None);
        let user = User { pid: std::process::id(), point: "/x".to_owned() };
        assert_eq!(user.describe(), "a mount at /x");
    }

    #[test]
    fn trees_are_found_in_the_options_of_overlays_and_as_roots_of_binds() {
        let tree: TreeId = "abcdefgh".parse().unwrap();
        let other: TreeId = "abcdefgi".parse().unwrap();
        for line in [
            "36 25 0:31 / /m rw - overlay layerstore rw,lowerdir+=/x/diff,upperdir=/abcdefgh/diff,workdir=/abcdefgh/work",
            "36 25 0:31 / /m ro - overlay layerstore ro,lowerdir=/s/overlay2/abcdefgh/diff:/s/overlay2/x/diff",
            "36 25 8:1 /s/overlay2/abcdefgh/diff /m ro - ext4 /dev/vda ro",
        ] {
            let tables = Tables { tables: HashMap::from([(1, (7, line.into()))]), partial: false };
            assert_eq!(tables.user(&tree), Some(User { pid: 7, point: "/m".to_owned() }), "{line}");
            assert_eq!(tables.user(&other), None, "{line}");
            assert_eq!(tables.rooted(&tree), None, "{line}");
            let rooted = Tables {
                tables: HashMap::from([(1, (7, line.replace(" /m ", " / ").into()))]),
                partial: false,
            };
            assert!(rooted.rooted(&tree).is_some() && rooted.rooted(&other).is_none(), "{line}");
        }
    }

    #[test]
    fn a_namespace_that_only_a_file_keeps_is_there() {
        let line = "40 25 0:4 mnt:[4026532201] /run/ns rw - nsfs nsfs rw";
        let tables = Tables { tables: HashMap::from([(1, (7, line.into()))]), partial: false };
        assert!(tables.has_namespace(4_026_532_201) && tables.has_namespace(1) && !tables.has_namespace(2));
    }
}
