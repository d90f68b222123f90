//! Where things are below the store's root. The one place that builds paths.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use layerstore_oci::{Algorithm, Digest};

use crate::error::Error;

/// The name of a tree's directory below `overlay2/`: eight characters of base 36.
///
/// Random rather than derived from the diff ID, so that a rebuilt tree never takes the place of one
/// that may be mounted, and short, because mount options have to hold up to 500 of them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeId([u8; NAME_LEN]);

impl TreeId {
    /// A new random ID.
    pub(crate) fn random() -> Self {
        Self(random_bytes())
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TreeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.as_bytes()
            .try_into()
            .ok()
            .filter(|name: &[u8; NAME_LEN]| name.iter().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()))
            .map(Self)
            .ok_or_else(|| Error::InvalidRow { what: "tree ID", value: text.to_owned() })
    }
}

const NAME_LEN: usize = 8;
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A random name of [`NAME_LEN`] characters.
///
/// Names need not be secret, only different; `RandomState` is seeded by the operating system and
/// differs for every call.
pub(crate) fn random_name() -> String {
    random_bytes().map(char::from).iter().collect()
}

fn random_bytes() -> [u8; NAME_LEN] {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut bits = std::hash::RandomState::new().build_hasher().finish()
        ^ std::hash::RandomState::new().build_hasher().finish().rotate_left(32)
        ^ (u64::from(std::process::id()) << 17);
    [(); NAME_LEN].map(|()| {
        let digit = ALPHABET[usize::try_from(bits % 36).unwrap_or(0)];
        bits /= 36;
        digit
    })
}

/// The paths of one store.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The SQLite database.
    pub fn database(&self) -> PathBuf {
        self.root.join("layerstore.db")
    }

    /// The file whose byte ranges are the store's locks.
    pub fn locks(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The directory of all blobs of one algorithm.
    pub fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    /// One blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    /// Holds some space for when the disk is full.
    pub fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// Where sessions keep what is not complete.
    pub fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// Where downloads are that may be continued.
    pub fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// The bytes of one blob that have been downloaded so far.
    pub fn partial_blob(&self, digest: &Digest) -> PathBuf {
        self.partial().join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }

    /// Where the trees are.
    pub fn overlay2(&self) -> PathBuf {
        self.root.join("overlay2")
    }

    /// The directory of one tree; its files are in `diff` below.
    pub fn tree(&self, id: &TreeId) -> PathBuf {
        self.overlay2().join(id.as_str())
    }

    /// The files of one tree.
    pub fn diff(&self, id: &TreeId) -> PathBuf {
        self.tree(id).join("diff")
    }

    /// Where overlayfs prepares what it writes to a tree.
    pub fn work(&self, id: &TreeId) -> PathBuf {
        self.tree(id).join("work")
    }

    /// What is forgotten and waits to be unlinked.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Mount points that the store makes when it is not told where to mount.
    pub fn mounts(&self) -> PathBuf {
        self.root.join("mnt")
    }

    /// Two empty directories that fill up an overlay's stack: the kernel wants two lower
    /// directories where there is no upper one.
    pub fn empty(&self) -> [PathBuf; 2] {
        ["0", "1"].map(|n| self.root.join("empty").join(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_ids_are_checked_when_read_back() {
        let id = TreeId::random();
        assert_eq!(id.as_str().parse::<TreeId>().unwrap(), id);
        for text in ["", "../../x", "ABCDEFGH", "abcdefg", "abcdefghi", "abcd/fgh"] {
            assert!(text.parse::<TreeId>().is_err(), "{text:?}");
        }
        assert_ne!(TreeId::random(), TreeId::random());
    }
}
