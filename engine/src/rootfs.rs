//! Looking inside an image without mounting it: the merged view of its trees, as overlayfs makes it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use layerstore_store::TreeId;
use layerstore_unpack::OverlayXattr;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, fstat, openat, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::Listener;
use crate::mount::unpackable;

/// Type of a file in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket, or something unknown.
    Other,
}

/// A file in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its path below the directory that was listed; empty for the file that was asked for itself.
    pub path: Vec<u8>,
    /// Its type.
    pub kind: FileKind,
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that the file has in its layer.
    pub links: u64,
    /// Bytes, for a regular file; the length of the target, for a link.
    pub size: u64,
    /// Last modification: seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Target of a symbolic link.
    pub link: Option<Vec<u8>>,
}

/// How to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListOptions {
    /// All that is below, not only the directory's own entries.
    pub recursive: bool,
    /// The file itself, even if it is a directory.
    pub itself: bool,
}

impl Layerstore {
    /// Lists a directory of an image by name, or a single file. Symbolic links on the way are followed inside the
    /// image, a link at the end is not.
    pub fn list(
        &self,
        image: &str,
        path: &[u8],
        options: ListOptions,
        listener: &Listener<'_>,
    ) -> Result<Vec<FileEntry>> {
        let rootfs = self.rootfs(image, listener)?;
        // `ls link/` and `ls directory` list what is in it; `ls link` shows the link.
        let follow = path.is_empty() || path.ends_with(b"/");
        let place = rootfs.resolve(path, follow)?;
        if place.kind != FileType::Directory || options.itself {
            return Ok(vec![rootfs.entry(&place, Vec::new())?]);
        }
        let mut entries = Vec::new();
        rootfs.list(&place, &[], options.recursive, &mut entries)?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Opens a regular file of an image. Symbolic links are followed inside the image.
    pub fn open_file(&self, image: &str, path: &[u8], listener: &Listener<'_>) -> Result<File> {
        self.rootfs(image, listener)?.open_regular(path)
    }

    fn rootfs(&self, name: &str, listener: &Listener<'_>) -> Result<Rootfs> {
        let found = self.find(name)?;
        let trees = self.unpacked(unpackable(name, &found)?, listener)?;
        self.rootfs_of(name, &trees)
    }

    /// The merged view of `trees`, topmost first.
    pub(crate) fn rootfs_of(&self, name: &str, trees: &[TreeId]) -> Result<Rootfs> {
        // A tree that comes many times is opened once.
        let mut open: HashMap<&TreeId, (Rc<OwnedFd>, bool)> = HashMap::new();
        let mut layers = Vec::with_capacity(trees.len());
        for id in trees {
            let layer = match open.get(id) {
                Some(layer) => layer.clone(),
                None => {
                    let path = self.store.layout().diff(id);
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let directory = openat(CWD, &path, flags, Mode::empty())
                        .map_err(|errno| failed("open", &path, errno))?;
                    let layer = (Rc::new(directory), self.has_opaque_root(id)?);
                    open.insert(id, layer.clone());
                    layer
                }
            };
            layers.push(layer);
        }
        Ok(Rootfs {
            image: name.to_owned(),
            layers,
            overlay: self.unpack.overlay,
            links: HashMap::new(),
            steps_left: Cell::new(u64::MAX),
        })
    }
}

/// The trees of an image, topmost first.
pub(crate) struct Rootfs {
    pub(crate) image: String,
    /// Each with whether nothing counts below it.
    layers: Vec<(Rc<OwnedFd>, bool)>,
    overlay: OverlayXattr,
    /// Hard links that layers have to files of those below, which their trees have not: by path, the layer and the
    /// file.
    pub(crate) links: HashMap<Vec<u8>, Vec<(usize, Place)>>,
    /// How many directories may still be opened.
    steps_left: Cell<u64>,
}

/// A file in the merged view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Path from the root, clean and free of symbolic links: where its topmost layer has it.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: FileType,
    /// The layers that have it: one for a file, all that are merged for a directory, topmost first.
    pub(crate) layers: Vec<usize>,
    /// Of a directory, the layers whose entries an opaque one above them hides. It is still the same directory.
    pub(crate) beneath: Vec<usize>,
}

impl Place {
    pub(crate) fn top(&self) -> usize {
        self.layers.first().copied().unwrap_or(0)
    }
}

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// Longest path that one system call takes, without the NUL at its end.
const PATH_MAX: usize = 4095;

impl Rootfs {
    /// From now on, opens no more than `steps` directories: who composes a stack must come to an end, whatever its
    /// layers say.
    pub(crate) fn limit_steps(&self, steps: u64) {
        self.steps_left.set(steps);
    }

    /// How many layers there are.
    pub(crate) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The root of the layers from number `first` down.
    pub(crate) fn root(&self, first: usize) -> Place {
        let opaque = self.layers.iter().skip(first).position(|(_, opaque)| *opaque);
        let end = opaque.map_or(self.layers.len(), |behind| first + behind + 1);
        let (layers, beneath) = ((first..end).collect(), (end..self.layers.len()).collect());
        Place { path: Vec::new(), kind: FileType::Directory, layers, beneath }
    }

    /// Opens a regular file. Symbolic links are followed inside the image.
    pub(crate) fn open_regular(&self, path: &[u8]) -> Result<File> {
        let place = self.resolve(path, true)?;
        let what = match place.kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                return Ok(self.open(place.top(), &place.path, flags)?.into());
            }
            FileType::Directory => "a directory",
            _ => "not a regular file",
        };
        Err(Error::WrongType { image: self.image.clone(), path: layerstore_unpack::shown(path), what })
    }

    fn resolve(&self, path: &[u8], follow: bool) -> Result<Place> {
        self.resolve_in(self.root(0), path, follow)
    }

    /// The file at a path below `root`. Symbolic links are followed, one at its end if `follow`.
    pub(crate) fn resolve_in(&self, root: Place, path: &[u8], follow: bool) -> Result<Place> {
        let no_path = || Error::NoPath { image: self.image.clone(), path: layerstore_unpack::shown(path) };
        let mut ahead: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut way = vec![root];
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let here = way.last().ok_or_else(no_path)?;
            if here.kind != FileType::Directory {
                return Err(no_path());
            }
            let next = self.step(here, &name)?.ok_or_else(no_path)?;
            if next.kind == FileType::Symlink && (follow || !ahead.is_empty()) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(no_path());
                }
                let target = self.target(&next)?;
                if target.starts_with(b"/") {
                    way.truncate(1);
                }
                ahead.extend(components(&target).rev().map(<[u8]>::to_vec));
            } else {
                way.push(next);
            }
        }
        way.pop().ok_or_else(no_path)
    }

    /// The entry `name` of a directory, merged.
    pub(crate) fn step(&self, directory: &Place, name: &[u8]) -> Result<Option<Place>> {
        let path = join(&directory.path, name);
        let mut found: Option<Place> = None;
        let mut opaque = false;
        let links = if self.links.is_empty() { None } else { self.links.get(&path) };
        for &layer in &directory.layers {
            if let Some((_, file)) = links.and_then(|links| links.iter().find(|(of, _)| *of == layer)) {
                return Ok(found.or_else(|| Some(file.clone())));
            }
            // The file, and the attribute that makes a directory opaque.
            self.charge(2 * (path.len() / PATH_MAX + 1))?;
            let Some(stat) = self.stat(layer, &path)? else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if is_whiteout(kind, &stat) {
                break;
            }
            match &mut found {
                None => {
                    let (layers, beneath) = (vec![layer], Vec::new());
                    found = Some(Place { path: path.clone(), kind, layers, beneath });
                }
                // A file below a directory ends what is merged.
                Some(_) if kind != FileType::Directory => break,
                Some(place) if opaque => place.beneath.push(layer),
                Some(place) => place.layers.push(layer),
            }
            if kind != FileType::Directory {
                break;
            }
            opaque = opaque || self.is_opaque(layer, &path)?;
        }
        Ok(found)
    }

    fn charge(&self, steps: usize) -> Result<()> {
        let left = self.steps_left.get().checked_sub(steps as u64);
        self.steps_left.set(left.ok_or_else(|| Error::TooManySteps { image: self.image.clone() })?);
        Ok(())
    }

    fn list(
        &self,
        place: &Place,
        prefix: &[u8],
        recursive: bool,
        entries: &mut Vec<FileEntry>,
    ) -> Result<()> {
        // Whether a name is shown; the topmost layer that has it decides.
        let mut names: HashMap<Vec<u8>, bool> = HashMap::new();
        for &layer in &place.layers {
            let directory =
                self.open(layer, &place.path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
            let all = Dir::read_from(&directory).map_err(|errno| self.failed(&place.path, errno))?;
            for entry in all {
                let entry = entry.map_err(|errno| self.failed(&place.path, errno))?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." || names.contains_key(name) {
                    continue;
                }
                let whiteout = entry.file_type() == FileType::CharacterDevice
                    && statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
                        .is_ok_and(|stat| is_whiteout(FileType::CharacterDevice, &stat));
                names.insert(name.to_vec(), !whiteout);
            }
        }
        for name in names.into_iter().filter_map(|(name, shown)| shown.then_some(name)) {
            let Some(child) = self.step(place, &name)? else { continue };
            let path = join(prefix, &name);
            entries.push(self.entry(&child, path.clone())?);
            if recursive && child.kind == FileType::Directory {
                self.list(&child, &path, recursive, entries)?;
            }
        }
        Ok(())
    }

    fn entry(&self, place: &Place, path: Vec<u8>) -> Result<FileEntry> {
        let file = self.open(place.top(), &place.path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
        let stat = fstat(&file).map_err(|errno| self.failed(&place.path, errno))?;
        let kind = match place.kind {
            FileType::RegularFile => FileKind::Regular,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Fifo => FileKind::Fifo,
            _ => FileKind::Other,
        };
        let link = if kind == FileKind::Symlink { Some(self.target(place)?) } else { None };
        Ok(FileEntry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: stat.st_nlink,
            size: if matches!(kind, FileKind::Regular | FileKind::Symlink) {
                stat.st_size.cast_unsigned()
            } else {
                0
            },
            modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            link,
        })
    }

    fn target(&self, place: &Place) -> Result<Vec<u8>> {
        let link = self.open(place.top(), &place.path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
        let target = readlinkat(&link, "", Vec::new()).map_err(|errno| self.failed(&place.path, errno))?;
        Ok(target.into_bytes())
    }

    fn stat(&self, layer: usize, path: &[u8]) -> Result<Option<Stat>> {
        match self.open_raw(layer, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
            Ok(file) => fstat(&file).map(Some).map_err(|errno| self.failed(path, errno)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    fn is_opaque(&self, layer: usize, path: &[u8]) -> Result<bool> {
        let directory = self.open(layer, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        let mut value = [0_u8; 1];
        match fgetxattr(&directory, self.overlay.opaque(), &mut value[..]) {
            Ok(_) => Ok(value == *b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    pub(crate) fn open(&self, layer: usize, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        self.open_raw(layer, path, flags).map_err(|errno| self.failed(path, errno))
    }

    /// Trees are not changed while they are read, but one component that is a link leads nowhere.
    fn open_raw(&self, layer: usize, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let (layer, _) = self.layers.get(layer).ok_or(Errno::NOENT)?;
        if path.is_empty() {
            return openat(&**layer, ".", flags, Mode::empty());
        }
        let (mut here, mut rest) = (Rc::clone(layer), path);
        while rest.len() > PATH_MAX {
            let head = rest.get(..=PATH_MAX).unwrap_or_default();
            let slash = head.iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
            let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            here = Rc::new(open_below(&here, &rest[..slash], directory)?);
            rest = &rest[slash + 1..];
        }
        open_below(&here, rest, flags)
    }

    fn failed(&self, path: &[u8], errno: Errno) -> Error {
        failed("read", Path::new(&format!("/{} of {}", layerstore_unpack::shown(path), self.image)), errno)
    }
}

/// Opens something below `layer`, of which no component but the last may be a link.
fn open_below(layer: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match openat2(layer, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A link in the last place can be opened as a path, one before it is in another layer's place.
            Err(Errno::LOOP) if flags.contains(OFlags::PATH | OFlags::NOFOLLOW) => {
                let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
                    Some(slash) => (&path[..slash], &path[slash + 1..]),
                    None => (&b"."[..], path),
                };
                let parent = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                return match openat2(layer, directory, parent, Mode::empty(), resolve) {
                    Ok(directory) => openat(directory, name, flags, Mode::empty()),
                    Err(Errno::LOOP) => Err(Errno::NOENT),
                    Err(errno) => Err(errno),
                };
            }
            other => return other,
        }
    }
}

fn failed(action: &'static str, path: &Path, errno: Errno) -> Error {
    Error::File { action, path: path.to_owned(), source: errno.into() }
}

fn is_whiteout(kind: FileType, stat: &Stat) -> bool {
    kind == FileType::CharacterDevice && stat.st_rdev == 0
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty() && *component != b".")
}
