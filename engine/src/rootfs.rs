//! Looking inside an image without mounting it: the merged view of its trees, as overlayfs makes it.

mod merge;
mod open;
#[cfg(test)]
pub(crate) mod trees;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use layerstore_oci::ErrorKind;
use layerstore_store::TreeId;
use layerstore_unpack::OverlayXattr;
use rustix::fs::{FileType, OFlags, Stat, fgetxattr, fstat, readlinkat};
use rustix::io::Errno;

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::Listener;
use crate::mount::unpackable;
pub(crate) use merge::{Found, Merge, Name};
pub(crate) use open::Layer;
use open::{Deep, PATH_MAX};

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
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image, container or path.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// for entry in store.list("app:1", b"/etc", Default::default(), &|_| {})? {
    ///     println!("{}", String::from_utf8_lossy(&entry.path));
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
        rootfs.list(&place, options.recursive)
    }

    /// Opens a regular file of an image. Symbolic links are followed inside the image.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::list`]; `InvalidInput` for what is no regular file.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let mut file = store.open_file("app:1", b"/etc/os-release", &|_| {})?;
    /// std::io::copy(&mut file, &mut std::io::stdout())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_file(&self, image: &str, path: &[u8], listener: &Listener<'_>) -> Result<File> {
        self.rootfs(image, listener)?.open_regular(path)
    }

    pub(crate) fn rootfs(&self, name: &str, listener: &Listener<'_>) -> Result<Rootfs> {
        let found = match self.find(name) {
            Err(error)
                if error.kind() == ErrorKind::NotFound && !self.store.find_containers(name)?.is_empty() =>
            {
                let (_, ready) = self.ready_container(name, listener)?;
                return self.rootfs_of(name, &ready.trees());
            }
            other => other?,
        };
        let trees = self.unpacked(unpackable(name, &found)?, listener)?;
        self.rootfs_of(name, &trees)
    }

    /// The merged view of `trees`, topmost first.
    pub(crate) fn rootfs_of(&self, name: &str, trees: &[TreeId]) -> Result<Rootfs> {
        // A tree that comes many times is opened once.
        let mut open: HashMap<&TreeId, (Layer, bool)> = HashMap::new();
        let mut layers = Vec::with_capacity(trees.len());
        for id in trees {
            let layer = match open.get(id) {
                Some(layer) => layer.clone(),
                None => {
                    let path = self.store.layout().diff(id);
                    let root = Layer::new(&path, open.len()).map_err(|errno| failed("open", &path, errno))?;
                    let layer = (root, self.has_opaque_root(id)?);
                    open.insert(id, layer.clone());
                    layer
                }
            };
            layers.push(layer);
        }
        Ok(Rootfs::new(name, layers, self.unpack.overlay))
    }
}

/// Device and inode number of a tree's root.
pub(crate) type TreeIdentity = (u64, u64);

/// The trees of an image, topmost first.
pub(crate) struct Rootfs {
    pub(crate) image: String,
    /// Each with whether nothing counts below it.
    layers: Vec<(Layer, bool)>,
    pub(crate) overlay: OverlayXattr,
    /// Hard links that layers have to files of those below, which their trees have not: by path, the layer and the
    /// file.
    pub(crate) links: HashMap<Vec<u8>, Vec<(usize, Place)>>,
    /// How many directories may still be opened.
    steps_left: Cell<u64>,
    /// Where each layer was opened last below paths that are too long for one system call.
    deep: RefCell<HashMap<usize, Deep>>,
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

impl Rootfs {
    /// The merged view of directories, topmost first, each with whether its root is opaque.
    pub(crate) fn new(name: &str, layers: Vec<(Layer, bool)>, overlay: OverlayXattr) -> Self {
        Self {
            image: name.to_owned(),
            layers,
            overlay,
            links: HashMap::new(),
            steps_left: Cell::new(u64::MAX),
            deep: RefCell::default(),
        }
    }

    /// Which tree each layer is, also to compare it with those of another view.
    pub(crate) fn identities(&self) -> Result<Vec<TreeIdentity>> {
        let identity = |(layer, _): &(Layer, bool)| {
            let stat = layer.directory().and_then(fstat).map_err(|errno| self.failed(b"", errno))?;
            Ok((stat.st_dev, stat.st_ino))
        };
        self.layers.iter().map(identity).collect()
    }

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

    /// The entries of a directory, sorted by path. A tree may be deeper than a stack has room for.
    fn list(&self, directory: &Place, recursive: bool) -> Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        let mut ahead = vec![(Vec::new(), directory.path.clone(), directory.layers.clone())];
        while let Some((below, path, layers)) = ahead.pop() {
            for (name, found) in Merge::new(self, &path, &layers).all()? {
                let (below, path) = (join(&below, &name), join(&path, &name));
                let place = Place { path, kind: found.kind, layers: found.layers, beneath: Vec::new() };
                entries.push(self.entry(&place, below.clone())?);
                if recursive && place.kind == FileType::Directory {
                    ahead.push((below, place.path, place.layers));
                }
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
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
        is_opaque(&directory, self.overlay).map_err(|errno| self.failed(path, errno))
    }

    fn failed(&self, path: &[u8], errno: Errno) -> Error {
        failed("read", Path::new(&format!("/{} of {}", layerstore_unpack::shown(path), self.image)), errno)
    }
}

fn failed(action: &'static str, path: &Path, errno: Errno) -> Error {
    Error::File { action, path: path.to_owned(), source: errno.into() }
}

fn is_opaque(directory: &OwnedFd, overlay: OverlayXattr) -> Result<bool, Errno> {
    let mut value = [0_u8; 1];
    match fgetxattr(directory, overlay.opaque(), &mut value[..]) {
        Ok(_) => Ok(value == *b"y"),
        // A longer value means nothing.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
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
