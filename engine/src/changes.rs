//! What differs between two merged views: two images, or a container and what it was made from.
//!
//! Most of two stacks is usually the same trees. So both are walked together, and of two directories only those
//! layers are read that not both have: a name that occurs in none of them means the same file in both.

use std::os::fd::OwnedFd;

use layerstore_unpack::{Comparer, DiffError};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::Listener;
use crate::rootfs::{Found, Merge, Name, Rootfs, TreeIdentity};

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is not as it was: another type, content, mode, owner, group, time of modification, size, device number,
    /// target of a link or extended attribute.
    Changed,
    /// It was not there before.
    Added,
    /// It is gone, with all that was in it.
    Deleted,
}

impl ChangeKind {
    /// The letter that Docker's `diff` prints.
    pub fn letter(self) -> char {
        match self {
            Self::Changed => 'C',
            Self::Added => 'A',
            Self::Deleted => 'D',
        }
    }
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What became of it.
    pub kind: ChangeKind,
    /// Its path, from `/`.
    pub path: Vec<u8>,
}

/// Which of the directories that have changes below them count as changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parents {
    /// All of them, as Docker's `diff` has it.
    All,
    /// Those that differ themselves.
    Changed,
}

impl Layerstore {
    /// Tells `each` how the files of the image `after` differ from those of `before`. Trees that are missing are
    /// unpacked first; nothing is mounted, and what both images have in common is not read.
    ///
    /// Changes come in the order of names' bytes, a directory before what is in it. Of a directory that is gone, or
    /// that a file has replaced, only the directory is told; of one that is new, all that is in it. The root itself is
    /// never told, and a directory only if it differs itself, not because something in it does. Numbers of links, and
    /// which names are links of each other, do not count.
    ///
    /// Fails if there is no such image, if it cannot be unpacked or read, and with the first error of `each`, which is
    /// not called again then.
    ///
    /// ```no_run
    /// # fn main() -> layerstore::Result<()> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// store.tree_diff("app:1", "app:2", &|_| {}, &mut |change| {
    ///     println!("{} {}", change.kind.letter(), String::from_utf8_lossy(&change.path));
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image or container; those of `each`.
    pub fn tree_diff(
        &self,
        before: &str,
        after: &str,
        listener: &Listener<'_>,
        each: &mut dyn FnMut(Change) -> Result<()>,
    ) -> Result<()> {
        let (before, after) = (self.rootfs(before, listener)?, self.rootfs(after, listener)?);
        changes(&before, &after, Parents::Changed, each)
    }
}

/// Tells `each` how `after` differs from `before`, and stops at its first error.
///
/// Changes come in the order of names' bytes, a directory before what is in it. Of a directory that is gone, or
/// that a file has replaced, only the directory is told; of one that is new, all that is in it. The root itself is
/// never told. A directory that was removed and made again is compared file by file with the old one.
///
/// Two files are compared by what programs see of them, content included, unless they are the same file of the same
/// tree. A container's file that overlayfs has copied up, but that is as it was, is no change. Numbers of links and
/// which names are links of each other do not count.
///
/// The topmost layer may be one that overlayfs writes into at that moment, for a program that wants harm: nothing
/// is followed, memory is needed only for the names in the directories on the way, and a tree may be of any depth.
/// What changes while it is looked at counts as changed. overlayfs must work with `redirect_dir=off` and
/// `metacopy=off` there.
pub(crate) fn changes(
    before: &Rootfs,
    after: &Rootfs,
    parents: Parents,
    each: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    let sides = Sides { before, after, trees: [before.identities()?, after.identities()?] };
    let (old, new) = (before.root(0).layers, after.root(0).layers);
    if sides.are_same(&old, &new) {
        return Ok(());
    }
    let walk = Walk {
        comparer: Comparer::new(after.overlay),
        parents,
        path: Vec::new(),
        way: vec![Frame { path: 0, names: sides.names(b"", &old, &new)? }],
        told: 1,
        sides,
        each,
    };
    walk.run()
}

/// The two views.
struct Sides<'a> {
    before: &'a Rootfs,
    after: &'a Rootfs,
    /// Which tree each layer is.
    trees: [Vec<TreeIdentity>; 2],
}

impl Sides<'_> {
    /// How many layers at the lower ends of two lists are the same trees.
    fn common(&self, old: &[usize], new: &[usize]) -> usize {
        let [of_old, of_new] = &self.trees;
        let same = |(old, new): &(&usize, &usize)| of_old.get(**old) == of_new.get(**new);
        old.iter().rev().zip(new.iter().rev()).take_while(same).count()
    }

    /// Whether a path that these layers have is the same on both sides, with all that is below it.
    fn are_same(&self, old: &[usize], new: &[usize]) -> bool {
        old.len() == new.len() && self.common(old, new) == old.len()
    }

    /// What may differ in the directory `path`, which `old` and `new` have. The last name comes first.
    fn names(&self, path: &[u8], old: &[usize], new: &[usize]) -> Result<Vec<Pair>> {
        let common = self.common(old, new);
        let (old_own, new_own) = (old.len() - common, new.len() - common);
        let mut before = Merge::new(self.before, path, old);
        let mut after = Merge::new(self.after, path, new);
        before.read(0..old_own)?;
        after.read(0..new_own)?;
        before.learn(&after);
        after.learn(&before);
        before.look(old_own..old.len())?;
        after.look(new_own..new.len())?;
        // Both know the same names now.
        let pairs = before.found().zip(after.found()).rev();
        let pairs = pairs.map(|((name, before), (_, after))| Pair { name, before, after });
        Ok(pairs.filter(|pair| !self.is_settled(pair)).collect())
    }

    fn is_settled(&self, pair: &Pair) -> bool {
        match (&pair.before, &pair.after) {
            (None, None) => true,
            (Some(before), Some(after)) => self.are_same(&before.layers, &after.layers),
            _ => false,
        }
    }
}

/// A name and what it stands for.
struct Pair {
    name: Name,
    before: Option<Found>,
    after: Option<Found>,
}

/// A directory on the way from the root to where the walk is.
struct Frame {
    /// Length of its path.
    path: usize,
    /// What is still to do there, from the end.
    names: Vec<Pair>,
}

struct Walk<'a> {
    sides: Sides<'a>,
    comparer: Comparer,
    parents: Parents,
    /// Of the file at hand, from the root, which has the empty one.
    path: Vec<u8>,
    way: Vec<Frame>,
    /// How many directories on the way, from the root, need not be told any more.
    told: usize,
    each: &'a mut dyn FnMut(Change) -> Result<()>,
}

impl Walk<'_> {
    fn run(mut self) -> Result<()> {
        while let Some(frame) = self.way.last_mut() {
            self.path.truncate(frame.path);
            let Some(Pair { name, before, after }) = frame.names.pop() else {
                self.way.pop();
                self.told = self.told.min(self.way.len());
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            let kind = match (&before, &after) {
                (None, Some(_)) => Some(ChangeKind::Added),
                (Some(_), None) => Some(ChangeKind::Deleted),
                (Some(before), Some(after)) if self.same(before, after)? => None,
                _ => Some(ChangeKind::Changed),
            };
            if let Some(kind) = kind {
                self.tell(kind)?;
            }
            if let Some(after) = after.filter(|after| after.kind == FileType::Directory) {
                let before = before.filter(|before| before.kind == FileType::Directory);
                let old = before.map(|before| before.layers).unwrap_or_default();
                let names = self.sides.names(&self.path, &old, &after.layers)?;
                self.way.push(Frame { path: self.path.len(), names });
                if kind.is_some() {
                    self.told = self.way.len();
                }
            }
        }
        Ok(())
    }

    /// Tells that of the file at hand, after its parents where these count.
    fn tell(&mut self, kind: ChangeKind) -> Result<()> {
        let tell = |each: &mut dyn FnMut(Change) -> Result<()>, kind, path: &[u8]| {
            each(Change { kind, path: [b"/", path].concat() })
        };
        if self.parents == Parents::All {
            for frame in self.way.iter().skip(self.told) {
                tell(self.each, ChangeKind::Changed, &self.path[..frame.path])?;
            }
            self.told = self.way.len();
        }
        tell(self.each, kind, &self.path)
    }

    /// Whether the file at hand is as it was, leaving aside what is in a directory.
    fn same(&mut self, before: &Found, after: &Found) -> Result<bool> {
        if before.kind != after.kind {
            return Ok(false);
        }
        let old = open(self.sides.before, before, &self.path)?;
        let (Some(old), Some(new)) = (old, open(self.sides.after, after, &self.path)?) else {
            return Ok(false);
        };
        match self.comparer.same(old, new, &self.path) {
            Err(DiffError::Changed { .. }) => Ok(false),
            other => other.map_err(|source| Error::Tree { name: self.sides.after.image.clone(), source }),
        }
    }
}

/// `None` if it is not there any more.
fn open(rootfs: &Rootfs, found: &Found, path: &[u8]) -> Result<Option<OwnedFd>> {
    match rootfs.open(found.top(), path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
        Err(Error::File { source, .. })
            if matches!(Errno::from_io_error(&source), Some(Errno::NOENT | Errno::NOTDIR)) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

#[cfg(test)]
pub(crate) mod tests;
