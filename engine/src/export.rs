//! A whole merged view as one archive.

use std::io::Write;

use layerstore_unpack::{DiffError, DiffOptions, Diffed, FlatArchive, Holes, Limits};
use rustix::fs::{FileType, OFlags};

use crate::error::{Error, Result};
use crate::rootfs::{Found, Merge, Name, Rootfs};

/// Writes all that a program sees in `rootfs` to `out`, as an uncompressed tar archive, and returns what that
/// contains and `out`.
///
/// The root comes first, as `./`; names come in the order of their bytes, a directory before what is in it. Owners,
/// modes, times with nanoseconds, devices, extended attributes and hard links are as in a mount of the same trees;
/// sockets are left out and counted. Nothing in the archive stands for a file that is gone. The same view gives the
/// same bytes, with [`Holes::Keep`] as far as filesystems keep holes alike. Small pieces are written, so `out`
/// should be buffered. After an error it holds an incomplete archive.
///
/// The topmost layer may belong to a container. It should be at rest: a file that changes while it is read is an
/// error, but what changes in between belongs to no point in time. Trees may be of any depth; a path of more than
/// half a megabyte does not fit into an archive and is an error. Memory is needed for the names in the directories
/// on the way and for files with several names.
pub(crate) fn export<W: Write>(rootfs: &Rootfs, holes: Holes, out: W) -> Result<(Diffed, W)> {
    let failed = |source: DiffError| Error::Tree { name: rootfs.image.clone(), source };
    let mut archive = FlatArchive::new(
        out,
        &DiffOptions { overlay: rootfs.overlay, holes, limits: limits(), newest: None },
    );
    let append = |archive: &mut FlatArchive<W>, path: &[u8], found: &Found| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rootfs.open(found.top(), path, flags).map_err(|error| gone(rootfs, path, error))?;
        archive.append(path, file).map_err(failed)
    };
    let root = Found { kind: FileType::Directory, layers: rootfs.root(0).layers };
    append(&mut archive, b"", &root)?;
    let mut path = Vec::new();
    let mut way = vec![frame(rootfs, &path, &root)?];
    while let Some(frame_here) = way.last_mut() {
        path.truncate(frame_here.path);
        let Some((name, found)) = frame_here.names.pop() else {
            way.pop();
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        append(&mut archive, &path, &found)?;
        if found.kind == FileType::Directory {
            way.push(frame(rootfs, &path, &found)?);
        }
    }
    archive.finish().map_err(failed)
}

/// A directory on the way from the root to where the walk is.
struct Frame {
    /// Length of its path.
    path: usize,
    /// What is still to do there, from the end.
    names: Vec<(Name, Found)>,
}

fn frame(rootfs: &Rootfs, path: &[u8], directory: &Found) -> Result<Frame> {
    let all = Merge::new(rootfs, path, &directory.layers).all().map_err(|error| gone(rootfs, path, error))?;
    let names = all.rev().collect();
    Ok(Frame { path: path.len(), names })
}

/// What was there a moment ago: somebody uses the container.
fn gone(rootfs: &Rootfs, path: &[u8], error: Error) -> Error {
    match error {
        Error::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Error::Tree {
            name: rootfs.image.clone(),
            source: DiffError::Changed { file: layerstore_unpack::shown(path) },
        },
        error => error,
    }
}

/// Who wants a tree wants all of it. What remains is what bounds memory, and what readers of archives take.
fn limits() -> Limits {
    let default = Limits::default();
    let longest = usize::try_from(default.tar.extension).unwrap_or(usize::MAX);
    Limits {
        output_bytes: u64::MAX,
        entries: u64::MAX,
        depth: usize::MAX,
        memory: 1 << 30,
        tar: layerstore_tar::Limits { path: longest, link: longest, ..default.tar },
        ..default
    }
}

#[cfg(test)]
mod tests;
