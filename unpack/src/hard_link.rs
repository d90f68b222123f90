//! Hard links, also to what the layer does not contain.
//!
//! The OCI image spec lets a hard link name a file of a lower layer, and says that unpacking it "may fail". A tree is a
//! function of its layer alone, so such a link is not made in it: it is reported, and whoever stacks trees adds the
//! file. In its place the tree has a whiteout: whatever layers below have there, the link replaces. Which links those
//! are is known at the end, as an archive may list a link before its target.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use layerstore_tar::Entry;
use rustix::fs::{AtFlags, linkat, statat};
use rustix::io::Errno;

use crate::apply::{Applier, is_directory};
use crate::error::{EntryContext as _, Error, Result, limit, lossy, refused};
use crate::root::{clean, split};

/// A hard link to a file of a layer below. Both paths are clean and free of the layer's own symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowerLink {
    /// Where the link is.
    pub path: Vec<u8>,
    /// What it is another name of.
    pub target: Vec<u8>,
}

/// Links whose target was not there when they came: path and target. A target that is empty stands for nothing.
#[derive(Debug, Default)]
pub(crate) struct Links(BTreeMap<Vec<u8>, Vec<u8>>);

impl Links {
    /// What is at `path` cannot be shown: it is a link to nothing.
    pub(crate) fn hide(&mut self, path: Vec<u8>) {
        self.0.insert(path, Vec::new());
    }

    /// Something else is at `path` now.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        self.0.remove(path);
    }

    /// The directory `path` was removed.
    pub(crate) fn forget_below(&mut self, path: &[u8]) {
        let prefix = [path, b"/"].concat();
        let below: Vec<_> = self
            .0
            .range(prefix.clone()..)
            .map(|(link, _)| link)
            .take_while(|l| l.starts_with(&prefix))
            .cloned()
            .collect();
        for link in below {
            self.0.remove(&link);
        }
    }

    /// The path of each link, and the target of the last link that it leads to.
    fn followed(&self) -> Result<Vec<(&[u8], &[u8])>> {
        let mut ends: HashMap<&[u8], &[u8]> = HashMap::new();
        for start in self.0.keys() {
            let (mut way, mut here) = (Vec::new(), start.as_slice());
            let end = loop {
                if let Some(end) = ends.get(here) {
                    break *end;
                }
                let Some(target) = self.0.get(here) else { break here };
                way.push(here);
                if way.len() > self.0.len() {
                    return Err(Error::CircularLink { entry: lossy(start), target: lossy(target) });
                }
                here = target;
            };
            ends.extend(way.into_iter().map(|link| (link, end)));
        }
        Ok(self.0.keys().filter_map(|link| Some((link.as_slice(), *ends.get(link.as_slice())?))).collect())
    }
}

/// The most bytes of paths and targets of links that are left to the layers below: they are kept for as long as the
/// tree is. Layers that have any have a few.
const LOWER_BYTES: usize = 16 << 20;

/// A file that a link can lead to.
struct Target {
    directory: OwnedFd,
    inode: u64,
}

impl Applier<'_> {
    pub(crate) fn hard_link(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let target = clean(&entry.link, self.options.limits.depth)?;
        if target.is_empty() {
            return Err(refused(&entry.path, "it is a hard link to the root"));
        }
        match self.target(&entry.path, &target)? {
            Some(_) if target.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/")) => {
                Err(refused(&entry.path, "it is a hard link to something in the directory that it replaces"))
            }
            Some(found) => self.link(path, &target, &found),
            None => self.defer(path, &target),
        }
    }

    /// `None` if the layer does not have it so far.
    fn target(&mut self, path: &[u8], target: &[u8]) -> Result<Option<Target>> {
        let (directory, name) = split(target);
        let Some(place) = self.root.existing(directory)? else { return Ok(None) };
        let directory = place.directory.try_clone().entry("open the directory of", target)?;
        match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_directory(&stat) => Err(refused(path, "it is a hard link to a directory")),
            Ok(stat) => Ok(Some(Target { directory, inode: stat.st_ino })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).entry("look at", target),
        }
    }

    fn link(&mut self, path: &[u8], target: &[u8], found: &Target) -> Result<()> {
        let (_, target_name) = split(target);
        self.create(path, |parent, name| {
            match linkat(&found.directory, target_name, parent, name, AtFlags::empty()) {
                // Linked to itself, maybe through another path: replacing it would destroy it.
                Err(Errno::EXIST)
                    if statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino == found.inode =>
                {
                    Ok(())
                }
                other => other,
            }
        })?;
        // A name, not an inode.
        self.result.usage.inodes -= 1;
        Ok(())
    }

    fn defer(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        // What an earlier entry put there goes, as if the link were made.
        let place = self.make_room(path)?;
        let (directory, name) = split(target);
        let mut target = self.root.resolved(directory)?;
        if !target.is_empty() {
            target.push(b'/');
        }
        target.extend_from_slice(name);
        self.remember(path, place.len() + target.len())?;
        self.links.0.insert(place, target);
        Ok(())
    }

    /// Makes the links whose target came after them, and reports the others, which are replaced by whiteouts.
    pub(crate) fn settle_links(&mut self) -> Result<()> {
        let links = std::mem::take(&mut self.links);
        let mut lower_bytes = 0;
        for (path, target) in links.followed()? {
            let (directory, name) = split(path);
            if let Some(place) = self.root.existing(directory)?
                && statat(&place.directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
            {
                return Err(refused(path, "the layer has something below it, and it is no directory"));
            }
            if target.is_empty() {
                self.remember(path, path.len())?;
                self.markers.hide(path);
                continue;
            }
            if let Some(found) = self.target(path, target)? {
                self.link(path, target, &found)?;
                continue;
            }
            lower_bytes += path.len() + target.len();
            if lower_bytes > LOWER_BYTES {
                return Err(limit(path, "bytes of hard links to layers below", LOWER_BYTES as u64));
            }
            self.remember(path, path.len())?;
            self.markers.hide(path);
            self.result.lower_links.push(LowerLink { path: path.to_vec(), target: target.to_vec() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(pairs: &[(&str, &str)]) -> Links {
        Links(
            pairs
                .iter()
                .map(|(path, target)| (path.as_bytes().to_vec(), target.as_bytes().to_vec()))
                .collect(),
        )
    }

    #[test]
    fn links_to_links_lead_to_where_those_lead() {
        let some = links(&[("a", "b"), ("b", "d"), ("c", "a"), ("x", "y")]);
        let expected =
            [("a", "d"), ("b", "d"), ("c", "d"), ("x", "y")].map(|(a, b)| (a.as_bytes(), b.as_bytes()));
        assert_eq!(some.followed().unwrap(), expected);
        for circle in [&[("a", "a")][..], &[("a", "b"), ("b", "a")], &[("a", "b"), ("b", "c"), ("c", "b")]] {
            assert!(matches!(links(circle).followed(), Err(Error::CircularLink { .. })), "{circle:?}");
        }
    }

    #[test]
    fn what_is_replaced_is_no_link() {
        let mut some = links(&[("a", "x"), ("a/b", "x"), ("a-b", "x")]);
        some.forget_below(b"a");
        some.forget(b"a-b");
        assert_eq!(some.followed().unwrap(), [(&b"a"[..], &b"x"[..])]);
    }
}
