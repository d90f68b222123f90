//! Whiteouts, from tar form to overlay form.
//!
//! A layer says with an empty file `.wh.NAME` that NAME of the layers below is gone, and with
//! `.wh..wh..opq` that everything below in its directory is (OCI image spec, "Whiteouts"). Neither
//! concerns the layer's own files, whatever the order of the entries. So the markers are collected and
//! written at the end, when it is known what the layer itself contains.
//!
//! In overlay form the first is a character device 0/0 in the place of NAME, the second an extended
//! attribute of the directory (kernel documentation, "overlayfs"). Where both meet, the kernel has its
//! own mind: inside an opaque directory, which it does not merge, it lists a whiteout like any file,
//! although every other call says that it does not exist. So none is written there. The same happens in
//! a directory that no other layer of the stack has, which nobody knows when a layer is unpacked. But the
//! kernel looks for whiteouts in whatever has been copied up, as a mark `origin` tells (`ovl_get_inode`);
//! an empty one says "from where is not known". So directories with whiteouts get that mark.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, XattrFlags, fsetxattr, mknodat, openat, statat, utimensat,
};
use rustix::io::Errno;

use crate::apply::Applier;
use crate::attributes::EPOCH;
use crate::error::{EntryContext as _, Result, refused};
use crate::root::split;

pub(crate) const PREFIX: &[u8] = b".wh.";
/// AUFS's own bookkeeping (`.wh..wh.plnk` and such), which old Docker images contain.
const META_PREFIX: &[u8] = b".wh..wh.";
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's name makes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    /// A file like any other.
    None,
    /// Nothing that anybody wants.
    Ignored,
    /// The file of this name is gone.
    Whiteout(Vec<u8>),
    /// All that was in the entry's directory is gone.
    Opaque,
}

/// Judges by the name alone: a whiteout may be archived as a hard link, or have content.
pub(crate) fn marker(path: &[u8]) -> Result<Marker> {
    let (directory, name) = split(path);
    for component in directory.split(|byte| *byte == b'/') {
        if component.starts_with(META_PREFIX) {
            return Ok(Marker::Ignored);
        }
        if component.starts_with(PREFIX) {
            return Err(refused(path, "it is inside a whiteout"));
        }
    }
    if name == OPAQUE {
        return Ok(Marker::Opaque);
    }
    if name.starts_with(META_PREFIX) {
        return Ok(Marker::Ignored);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Marker::None),
        Some(b"" | b"." | b"..") => Err(refused(path, "it is a whiteout of no file")),
        Some(hidden) => Ok(Marker::Whiteout(hidden.to_vec())),
    }
}

/// All markers of a layer, as clean paths of what they hide.
#[derive(Debug, Default)]
pub(crate) struct Markers {
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
}

impl Markers {
    pub(crate) fn add(&mut self, path: &[u8], marker: &Marker) -> Result<()> {
        let (directory, _) = split(path);
        match marker {
            Marker::Opaque => {
                self.opaque.insert(directory.to_vec());
            }
            Marker::Whiteout(name) if directory.is_empty() => {
                self.whiteouts.insert(name.clone());
            }
            Marker::Whiteout(name) => {
                self.whiteouts.insert([directory, b"/", name].concat());
            }
            Marker::None | Marker::Ignored => return Err(refused(path, "it is not a whiteout")),
        }
        Ok(())
    }

    /// Hides `path`, which is clean and free of links.
    pub(crate) fn hide(&mut self, path: &[u8]) {
        self.whiteouts.insert(path.to_vec());
    }

    /// The same with all symbolic links of the tree resolved, so that paths of one directory are alike.
    fn resolved(self, applier: &mut Applier<'_>) -> Result<Self> {
        let mut resolved = Self::default();
        for path in self.opaque {
            let place = applier.root.resolved(&path)?;
            applier.remember(&path, place.len())?;
            resolved.opaque.insert(place);
        }
        // Most of them follow others of the same directory.
        let mut last: Option<(Vec<u8>, Vec<u8>)> = None;
        for path in self.whiteouts {
            let (directory, name) = split(&path);
            let place = match &last {
                Some((asked, place)) if asked == directory => place,
                _ => &last.insert((directory.to_vec(), applier.root.resolved(directory)?)).1,
            };
            // A link may make a long path of a short one.
            applier.remember(&path, place.len() + name.len())?;
            resolved.whiteouts.insert(match place.as_slice() {
                b"" => name.to_vec(),
                directory => [directory, b"/", name].concat(),
            });
        }
        Ok(resolved)
    }

    /// Whether `directory` or one above it hides everything below itself already.
    fn hidden(&self, directory: &[u8]) -> bool {
        let mut here = directory;
        loop {
            if self.opaque.contains(here) || (!here.is_empty() && self.whiteouts.contains(here)) {
                return true;
            }
            if here.is_empty() {
                return false;
            }
            here = split(here).0;
        }
    }
}

/// Writes the markers into the tree, which is complete otherwise.
pub(crate) fn write(applier: &mut Applier<'_>, markers: Markers) -> Result<()> {
    let markers = markers.resolved(applier)?;
    for path in &markers.opaque {
        // A directory that is gone is not there to be opaque.
        let gone = markers.whiteouts.contains(path) || !path.is_empty() && markers.hidden(split(path).0);
        if gone && applier.root.existing(path)?.is_none() {
            continue;
        }
        applier.root.charge(path)?;
        set_opaque(applier, path)?;
    }
    // Of the directory of the whiteout before: most follow others of the same one.
    let mut last: Option<(Vec<u8>, bool)> = None;
    let mut marked = Vec::new();
    for path in &markers.whiteouts {
        let (directory, name) = split(path);
        let existing = match applier.root.existing(directory)? {
            None => None,
            Some(place) => match statat(&place.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(errno).entry("look at", path),
            },
        };
        let hidden = match &last {
            Some((same, hidden)) if same == directory => *hidden,
            _ => {
                applier.root.charge(directory)?;
                last.insert((directory.to_vec(), markers.hidden(directory))).1
            }
        };
        match existing {
            // The lower directory is gone, the layer's own is there instead: they must not be merged.
            // What it was says nothing of what it is.
            Some(FileType::Directory) => {
                set_opaque(applier, path)?;
                applier.implied.remove(path);
            }
            // The layer's own file hides the lower one anyway.
            Some(_) => {}
            None if hidden => {}
            None => {
                set_whiteout(applier, path)?;
                // The root of a mount is always looked through.
                if !directory.is_empty() && marked != directory {
                    mark_origin(applier, directory)?;
                    marked = directory.to_vec();
                }
            }
        }
    }
    Ok(())
}

fn set_whiteout(applier: &mut Applier<'_>, path: &[u8]) -> Result<()> {
    let (directory, name) = split(path);
    let mut implied = Vec::new();
    let parent = applier.root.created(directory, &mut implied)?;
    let parent = parent.directory.as_fd();
    mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0).entry("write a whiteout for", path)?;
    // Nobody sees it, but a layer gives the same tree each time.
    utimensat(parent, name, &EPOCH, AtFlags::SYMLINK_NOFOLLOW).entry("set the times of", path)?;
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).entry("look at", path)?;
    applier.result.usage.add_blocks(&stat);
    applier.note_implied(implied)?;
    applier.result.usage.inodes += 1;
    applier.result.whiteouts += 1;
    Ok(())
}

/// Lets the kernel look for whiteouts in a directory when it lists it.
fn mark_origin(applier: &mut Applier<'_>, path: &[u8]) -> Result<()> {
    let attribute = applier.options.overlay.origin();
    let Some(directory) = applier.root.existing(path)? else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(&directory.directory, ".", flags, Mode::empty()).entry("open", path)?;
    match fsetxattr(&directory, attribute, b"", XattrFlags::empty()) {
        // Then whiteouts are listed, and still hide what they hide.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno).entry("mark as a place of whiteouts", path),
    }
}

fn set_opaque(applier: &mut Applier<'_>, path: &[u8]) -> Result<()> {
    let mut implied = Vec::new();
    let attribute = applier.options.overlay.opaque();
    let directory = applier.root.created(path, &mut implied)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(&directory.directory, ".", flags, Mode::empty()).entry("open", path)?;
    fsetxattr(&directory, attribute, b"y", XattrFlags::empty()).entry("make opaque", path)?;
    applier.result.whiteouts += 1;
    applier.note_implied(implied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide() {
        let hidden = |name: &[u8]| Marker::Whiteout(name.to_vec());
        for (path, expected) in [
            (b"a/b".as_slice(), Marker::None),
            (b"a/.wh.b", hidden(b"b")),
            (b".wh.b", hidden(b"b")),
            (b".wh..b", hidden(b".b")),
            (b".wh....", hidden(b"...")),
            (b"a/.wh..wh..opq", Marker::Opaque),
            (b"a/.wh..wh.aufs", Marker::Ignored),
            (b".wh..wh.plnk/1.2", Marker::Ignored),
            (b"a/x.wh.b", Marker::None),
        ] {
            assert_eq!(marker(path).unwrap(), expected, "{}", path.escape_ascii());
        }
        for path in [b".wh.".as_slice(), b"a/.wh..", b"a/.wh...", b".wh.a/b"] {
            assert!(marker(path).is_err(), "{}", path.escape_ascii());
        }
    }

    #[test]
    fn what_is_above_covers_what_is_below() {
        let mut markers = Markers::default();
        markers.add(b"a/.wh.b", &Marker::Whiteout(b"b".to_vec())).unwrap();
        markers.add(b"o/.wh..wh..opq", &Marker::Opaque).unwrap();
        assert!(markers.hidden(b"a/b/c") && markers.hidden(b"a/b"));
        assert!(!markers.hidden(b"a"));
        assert!(markers.hidden(b"o"));
        assert!(!markers.hidden(b""));
    }
}
