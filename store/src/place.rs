//! What belongs where below the root: which names the store gives, and which nobody can explain.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use layerstore_oci::{Algorithm, Digest};

use crate::layout::TreeId;
use crate::overlay::LINKS;
use crate::partial;

/// A directory whose entries have a meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Root,
    Blobs,
    Algorithm(Algorithm),
    Trees,
    /// The directory of one tree.
    Tree(TreeId),
    Ingests,
    Partials,
    Trash,
    Mounts,
    /// The mount point of this name.
    Mount(OsString),
    Empties,
    /// One of the two empty directories.
    Empty,
}

/// What an entry is by its place, its name and whether it is a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A directory that every store has.
    Folder(Place),
    /// A file that stores have, or something of the filesystem itself.
    Own,
    /// A blob, if it has a row.
    Blob(Digest),
    /// A tree, if it has a row.
    Tree(TreeId),
    /// Counted with the tree.
    OfTree,
    Session,
    Partial(Digest),
    Trashed,
    /// A directory to mount at. Explained if a row says so, something is mounted there, or it is empty.
    Mount(OsString),
    Unknown,
}

/// SQLite's files (its documentation, "Temporary Files Used By SQLite"), the locks and the reserve. `lost+found` is where
/// ext4's fsck puts what it finds.
const FILES: [&str; 6] =
    ["layerstore.db", "layerstore.db-journal", "layerstore.db-shm", "layerstore.db-wal", "lock", "reserve"];
const LOST_AND_FOUND: &str = "lost+found";

impl Place {
    /// Where something lies, of which `path` is the path below the root. `None` if no entry of that directory has a meaning.
    pub(crate) fn of(path: &Path) -> Option<(Self, &OsStr)> {
        let mut here = Self::Root;
        let mut components = path.components().peekable();
        loop {
            let Component::Normal(name) = components.next()? else { return None };
            if components.peek().is_none() {
                return Some((here, name));
            }
            here = match here.entry(name, true) {
                Entry::Folder(place) => place,
                Entry::Tree(id) => Self::Tree(id),
                Entry::Mount(name) => Self::Mount(name),
                _ => return None,
            };
        }
    }

    /// Whether every store has a directory of this name here: something else in its place is no debris, but the link by which
    /// somebody has moved it to another disk, or damage.
    pub(crate) fn has_folder(&self, name: &OsStr) -> bool {
        matches!(self.entry(name, true), Entry::Folder(_))
    }

    pub(crate) fn entry(&self, name: &OsStr, directory: bool) -> Entry {
        let text = name.to_str().unwrap_or_default();
        match self {
            Self::Root if directory => match text {
                "blobs" => Entry::Folder(Self::Blobs),
                "overlay2" => Entry::Folder(Self::Trees),
                "ingest" => Entry::Folder(Self::Ingests),
                "partial" => Entry::Folder(Self::Partials),
                "trash" => Entry::Folder(Self::Trash),
                "mnt" => Entry::Folder(Self::Mounts),
                "empty" => Entry::Folder(Self::Empties),
                LOST_AND_FOUND => Entry::Own,
                _ => Entry::Unknown,
            },
            Self::Root if FILES.contains(&text) => Entry::Own,
            Self::Blobs if directory => [Algorithm::Sha256, Algorithm::Sha512]
                .into_iter()
                .find(|algorithm| algorithm.as_str() == text)
                .map_or(Entry::Unknown, |algorithm| Entry::Folder(Self::Algorithm(algorithm))),
            Self::Algorithm(algorithm) if !directory => {
                Digest::from_hex(*algorithm, text).map_or(Entry::Unknown, Entry::Blob)
            }
            Self::Trees if directory => text.parse().map_or(Entry::Unknown, Entry::Tree),
            Self::Tree(_) if directory && ["diff", "work"].contains(&text) => Entry::OfTree,
            Self::Ingests if directory => Entry::Session,
            Self::Partials if !directory => partial::parse_name(text).map_or(Entry::Unknown, Entry::Partial),
            Self::Trash => Entry::Trashed,
            // Of a mount that is being made.
            Self::Mounts if directory && name.as_bytes().starts_with(LINKS.as_bytes()) => Entry::Own,
            Self::Mounts if directory => Entry::Mount(name.to_owned()),
            Self::Empties if directory && ["0", "1"].contains(&text) => Entry::Folder(Self::Empty),
            _ => Entry::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_store_gives_are_explained() {
        let digest = Digest::sha256_of(b"x");
        let hex = digest.hex();
        let entry = |path: &str, directory| {
            let (place, name) = Place::of(Path::new(path)).unwrap();
            place.entry(name, directory)
        };
        assert_eq!(entry("layerstore.db-wal", false), Entry::Own);
        assert_eq!(entry("layerstore.db", true), Entry::Unknown);
        assert_eq!(entry(&format!("blobs/sha256/{hex}"), false), Entry::Blob(digest.clone()));
        assert_eq!(entry(&format!("blobs/sha256/{hex}"), true), Entry::Unknown);
        assert_eq!(entry(&format!("blobs/sha512/{hex}"), false), Entry::Unknown);
        assert_eq!(entry(&format!("partial/sha256-{hex}"), false), Entry::Partial(digest));
        assert_eq!(entry("overlay2/abcdefgh", true), Entry::Tree("abcdefgh".parse().unwrap()));
        for (path, directory) in [
            ("blobs", false),
            ("blobs/md5", true),
            ("overlay2/abcdefgh", false),
            ("overlay2/l", true),
            ("overlay2/abcdefgh/lower", false),
            ("overlay2/abcdefgh/merged", true),
            ("empty/0/x", false),
            ("empty/2", true),
            ("mnt/file", false),
            ("ingest/file", false),
            ("Blobs", true),
        ] {
            assert_eq!(entry(path, directory), Entry::Unknown, "{path}");
        }
        for (path, folder) in
            [("overlay2", true), ("blobs/sha256", true), ("empty/0", true), ("empty/2", false)]
        {
            let (place, name) = Place::of(Path::new(path)).unwrap();
            assert_eq!(place.has_folder(name), folder, "{path}");
        }
        for path in ["", "x/y", "overlay2/abcdefgh/diff/x", "trash/a/b", "../x", "/etc/x"] {
            assert_eq!(Place::of(Path::new(path)), None, "{path}");
        }
    }
}
