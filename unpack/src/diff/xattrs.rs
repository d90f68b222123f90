//! Extended attributes: which go into the layer, and what overlayfs says with its own.
//!
//! The kernel's documentation ("overlayfs") gives the rules: `opaque` is `y` on a directory that hides what
//! is below; `x` on one in which an empty regular file with the attribute `whiteout` is a whiteout;
//! `redirect` and `metacopy` say that the name or the data is that of another file. A name with `overlay.`
//! twice is one that the container sees with `overlay.` once.

use layerstore_tar::Xattr;
use rustix::fs::{getxattr, listxattr};
use rustix::io::Errno;

use super::error::{DiffError, FileContext as _, refused, too_much};
use super::node::Node;
use crate::options::OverlayXattr;

/// The most that Linux lists of names, and that it stores in one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX: usize = 65536;

/// Made by the security modules of this machine for its own use: a label of its policy, and a keyed hash that
/// covers the inode number.
pub(crate) const LOCAL: [&[u8]; 2] = [b"security.selinux", b"security.evm"];

/// What a directory hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Opaque {
    #[default]
    No,
    /// Everything in the layers below.
    Yes,
    /// Nothing itself, but regular files in it may be whiteouts.
    Whiteouts,
}

#[derive(Debug, Default)]
pub(super) struct Xattrs {
    /// Sorted by name.
    pub(super) exported: Vec<Xattr>,
    pub(super) opaque: Opaque,
    /// The file is a whiteout if it is empty.
    pub(super) whiteout: bool,
    /// It was copied from a layer below.
    pub(super) copied: bool,
}

/// Reads attributes into buffers that are used again.
#[derive(Debug)]
pub(super) struct Source {
    overlay: OverlayXattr,
    limits: layerstore_tar::Limits,
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Source {
    pub(super) fn new(overlay: OverlayXattr, limits: layerstore_tar::Limits) -> Self {
        Self { overlay, limits, names: vec![0; MAX], value: vec![0; MAX] }
    }

    pub(super) fn read(&mut self, node: &Node, path: &[u8]) -> Result<Xattrs, DiffError> {
        let file = node.proc_path();
        let length = match listxattr(&file, &mut self.names[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            other => other.file("list the extended attributes of", path)?,
        };
        let mut found = Xattrs::default();
        let mut bytes = 0;
        for name in self.names[..length].split(|byte| *byte == 0) {
            if name.is_empty() || LOCAL.contains(&name) {
                continue;
            }
            let exported = match name.strip_prefix(self.overlay.prefix()) {
                None => name.to_vec(),
                Some(own) => match own.strip_prefix(b"overlay.") {
                    Some(escaped) => [self.overlay.prefix(), escaped].concat(),
                    None => {
                        found.mark(own, || value(&file, name, &mut self.value, path), path)?;
                        continue;
                    }
                },
            };
            let value = value(&file, name, &mut self.value, path)?;
            bytes += exported.len() + value.len();
            // One after the other, as all together need not fit into memory.
            if found.exported.len() >= self.limits.xattrs {
                return Err(too_much(path, "extended attributes", self.limits.xattrs as u64));
            }
            if bytes > self.limits.xattr_bytes {
                return Err(too_much(path, "bytes of extended attributes", self.limits.xattr_bytes as u64));
            }
            found.exported.push((exported, value.to_vec()));
        }
        found.exported.sort_unstable();
        Ok(found)
    }
}

impl Xattrs {
    /// Takes one of overlayfs's own attributes, its name without prefix.
    fn mark<'a>(
        &mut self,
        name: &[u8],
        value: impl FnOnce() -> Result<&'a [u8], DiffError>,
        path: &[u8],
    ) -> Result<(), DiffError> {
        match name {
            b"opaque" => {
                self.opaque = match value()? {
                    b"y" => Opaque::Yes,
                    b"x" => Opaque::Whiteouts,
                    // Nothing to the kernel either.
                    _ => Opaque::No,
                }
            }
            b"whiteout" => self.whiteout = true,
            b"origin" => self.copied = true,
            b"redirect" => {
                return Err(refused(
                    path,
                    "it was renamed by overlayfs (redirect_dir=on) and has content elsewhere",
                ));
            }
            b"metacopy" => {
                return Err(refused(path, "overlayfs keeps its data elsewhere (metacopy=on)"));
            }
            // `impure`, `nlink`, `upper`, `uuid`, `protattr` and such: about this mount.
            _ => {}
        }
        Ok(())
    }

    /// How long all this is in a PAX header, at most.
    pub(super) fn records(&self) -> usize {
        // Keyword, length, and what keeps them apart.
        const FRAME: usize = 48;
        let record = |(name, value): &Xattr| {
            // Escapes and base64.
            if name.contains(&b'=') { 3 * name.len() + 2 * value.len() } else { name.len() + value.len() }
        };
        self.exported.iter().map(|xattr| record(xattr) + FRAME).sum()
    }
}

fn value<'a>(file: &str, name: &[u8], buffer: &'a mut [u8], path: &[u8]) -> Result<&'a [u8], DiffError> {
    let length = getxattr(file, name, &mut *buffer).file("read an extended attribute of", path)?;
    Ok(&buffer[..length])
}
