//! Looking inside an image without mounting it: the merged view of its trees, as overlayfs makes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

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
        let rootfs = self.rootfs(image, listener)?;
        let place = rootfs.resolve(path, true)?;
        let what = match place.kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                return Ok(rootfs.open(place.top(), &place.path, flags)?.into());
            }
            FileType::Directory => "a directory",
            _ => "not a regular file",
        };
        Err(Error::WrongType { image: image.to_owned(), path: lossy(path), what })
    }

    fn rootfs(&self, name: &str, listener: &Listener<'_>) -> Result<Rootfs> {
        let found = self.find(name)?;
        let trees = self.unpacked(unpackable(name, &found)?, listener)?;
        self.rootfs_of(name, &trees)
    }

    /// The merged view of `trees`, topmost first.
    pub(crate) fn rootfs_of(&self, name: &str, trees: &[TreeId]) -> Result<Rootfs> {
        let layers = trees
            .iter()
            .map(|id| {
                let path = self.store.layout().diff(id);
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                openat(CWD, &path, flags, Mode::empty()).map_err(|errno| failed("open", &path, errno))
            })
            .collect::<Result<_>>()?;
        let opaque = trees.iter().map(|id| self.has_opaque_root(id)).collect::<Result<_>>()?;
        let (image, overlay) = (name.to_owned(), self.unpack.overlay);
        Ok(Rootfs { image, layers, opaque, overlay, links: HashMap::new() })
    }
}

/// The trees of an image, topmost first.
pub(crate) struct Rootfs {
    image: String,
    layers: Vec<OwnedFd>,
    /// Whether nothing counts below a layer.
    opaque: Vec<bool>,
    overlay: OverlayXattr,
    /// Hard links that a layer has to a file of those below, which its tree has not: layer and path, and the file.
    links: HashMap<(usize, Vec<u8>), Place>,
}

/// A file in the merged view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Components from the root, free of symbolic links: where its topmost layer has it.
    pub(crate) path: Vec<Vec<u8>>,
    pub(crate) kind: FileType,
    /// The layers that have it: one for a file, all that are merged for a directory, topmost first.
    pub(crate) layers: Vec<usize>,
}

impl Place {
    pub(crate) fn top(&self) -> usize {
        self.layers.first().copied().unwrap_or(0)
    }
}

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// So many directories at once that their path is shorter than `PATH_MAX`, whatever their names.
const AT_ONCE: usize = 15;

impl Rootfs {
    /// The root of the layers from number `first` down.
    fn root(&self, first: usize) -> Place {
        let opaque = self.opaque.iter().skip(first).position(|opaque| *opaque);
        let end = opaque.map_or(self.layers.len(), |behind| first + behind + 1);
        Place { path: Vec::new(), kind: FileType::Directory, layers: (first..end).collect() }
    }

    /// Finds out what the hard links of each layer lead to, given as path and target.
    pub(crate) fn add_links(&mut self, layer: usize, links: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        for (path, target) in links {
            let missing = || Error::MissingLinkTarget {
                image: self.image.clone(),
                entry: lossy(path),
                target: lossy(target),
            };
            let place = match self.resolve_in(self.root(layer + 1), target, false) {
                Err(Error::NoPath { .. }) => return Err(missing()),
                other => other?,
            };
            if place.kind == FileType::Directory {
                return Err(missing());
            }
            self.links.insert((layer, path.clone()), place);
        }
        Ok(())
    }

    /// The files that hard links lead to, each with all its names in the merged view.
    pub(crate) fn linked_files(&self) -> Result<Vec<(Place, Vec<Vec<u8>>)>> {
        let mut files: BTreeMap<(usize, Vec<u8>), (Place, BTreeSet<_>)> = BTreeMap::new();
        for ((_, path), file) in &self.links {
            // Another layer may have something else there, or nothing.
            if self.exactly(path)?.as_ref() != Some(file) {
                continue;
            }
            let own = file.path.join(&b'/');
            let key = (file.top(), own.clone());
            let (_, names) = files.entry(key).or_insert_with(|| (file.clone(), BTreeSet::new()));
            names.insert(path.clone());
            if self.exactly(&own)?.as_ref() == Some(file) {
                names.insert(own);
            }
        }
        Ok(files.into_values().map(|(file, names)| (file, names.into_iter().collect())).collect())
    }

    /// The file at a path without symbolic links; `None` if there is none, or a link on its way.
    pub(crate) fn exactly(&self, path: &[u8]) -> Result<Option<Place>> {
        let mut place = self.root(0);
        for name in components(path) {
            if place.kind != FileType::Directory {
                return Ok(None);
            }
            match self.step(&place, name)? {
                Some(next) => place = next,
                None => return Ok(None),
            }
        }
        Ok(Some(place))
    }

    fn resolve(&self, path: &[u8], follow: bool) -> Result<Place> {
        self.resolve_in(self.root(0), path, follow)
    }

    fn resolve_in(&self, root: Place, path: &[u8], follow: bool) -> Result<Place> {
        let no_path = || Error::NoPath { image: self.image.clone(), path: lossy(path) };
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
    fn step(&self, directory: &Place, name: &[u8]) -> Result<Option<Place>> {
        let mut path = directory.path.clone();
        path.push(name.to_vec());
        let mut found: Option<Place> = None;
        if self.layers.is_empty() {
            return Ok(None);
        }
        let joined = if self.links.is_empty() { Vec::new() } else { path.join(&b'/') };
        for &layer in &directory.layers {
            if !self.links.is_empty()
                && let Some(file) = self.links.get(&(layer, joined.clone()))
            {
                return Ok(found.or_else(|| Some(file.clone())));
            }
            let Some(stat) = self.stat(layer, &path)? else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if is_whiteout(kind, &stat) {
                break;
            }
            match &mut found {
                None => found = Some(Place { path: path.clone(), kind, layers: vec![layer] }),
                // A file below a directory ends what is merged.
                Some(_) if kind != FileType::Directory => break,
                Some(place) => place.layers.push(layer),
            }
            if kind != FileType::Directory || self.is_opaque(layer, &path)? {
                break;
            }
        }
        Ok(found)
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
            let path = if prefix.is_empty() { name } else { [prefix, b"/", &name].concat() };
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

    fn stat(&self, layer: usize, path: &[Vec<u8>]) -> Result<Option<Stat>> {
        match self.open_raw(layer, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
            Ok(file) => fstat(&file).map(Some).map_err(|errno| self.failed(path, errno)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    fn is_opaque(&self, layer: usize, path: &[Vec<u8>]) -> Result<bool> {
        let directory = self.open(layer, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        let mut value = [0_u8; 1];
        match fgetxattr(&directory, self.overlay.opaque(), &mut value[..]) {
            Ok(_) => Ok(value == *b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    pub(crate) fn open(&self, layer: usize, path: &[Vec<u8>], flags: OFlags) -> Result<OwnedFd> {
        self.open_raw(layer, path, flags).map_err(|errno| self.failed(path, errno))
    }

    /// Trees are not changed while they are read, but one component that is a link leads nowhere.
    fn open_raw(&self, layer: usize, path: &[Vec<u8>], flags: OFlags) -> Result<OwnedFd, Errno> {
        let layer = self.layers.get(layer).ok_or(Errno::NOENT)?;
        let Some(whole) = path.len().checked_sub(1).map(|last| last / AT_ONCE * AT_ONCE) else {
            return openat(layer, ".", flags, Mode::empty());
        };
        let mut here = None;
        for part in path.get(..whole).unwrap_or_default().chunks(AT_ONCE) {
            let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            here = Some(open_below(here.as_ref().unwrap_or(layer), part, directory)?);
        }
        open_below(here.as_ref().unwrap_or(layer), path.get(whole..).unwrap_or_default(), flags)
    }

    fn failed(&self, path: &[Vec<u8>], errno: Errno) -> Error {
        failed("read", Path::new(&format!("/{} of {}", lossy(&path.join(&b'/')), self.image)), errno)
    }
}

/// Opens something below `layer`, of which no component but the last may be a link.
fn open_below(layer: &OwnedFd, path: &[Vec<u8>], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = path.join(&b'/');
    loop {
        match openat2(layer, &path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A link in the last place can be opened as a path, one before it is in another layer's place.
            Err(Errno::LOOP) if flags.contains(OFlags::PATH | OFlags::NOFOLLOW) => {
                let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
                    Some(slash) => (&path[..slash], &path[slash + 1..]),
                    None => (&b"."[..], &path[..]),
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

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty() && *component != b".")
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
