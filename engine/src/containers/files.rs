//! What is in a container: what was changed, all of it as an archive, and images made of it.

use std::io::{BufWriter, Write};

use layerstore_oci::Reference;
use layerstore_store::{ContainerRow, ImageInfo};
use layerstore_unpack::{DiffError, Diffed, Holes};

use crate::Layerstore;
use crate::build::{Built, CommitOptions};
use crate::changes::{Change, Parents, changes};
use crate::error::{Error, Result};
use crate::event::Listener;
use crate::export::export;
use crate::ready::Ready;

/// Bytes of an archive that are written at once.
const BUFFER: usize = 256 << 10;

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    /// Bytes of the archive.
    pub bytes: u64,
    /// Its entries.
    pub entries: u64,
    /// Sockets, which no archive can hold.
    pub sockets: u64,
}

impl Layerstore {
    /// Tells `each` what was changed in a container since it was made, as `docker diff` does: in the order of names, a
    /// directory before what is in it. Directories with changes in them count as changed.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such container; `Corrupt` if its files have been deleted.
    pub fn diff(
        &self,
        container: &str,
        listener: &Listener<'_>,
        each: &mut dyn FnMut(Change) -> Result<()>,
    ) -> Result<()> {
        let (row, ready) = self.ready_container(container, listener)?;
        let name = format!("container {}", row.name);
        self.with_container(&row, || {
            let before = self.rootfs_of(&name, &ready.below)?;
            let after = self.rootfs_of(&name, &ready.trees())?;
            changes(&before, &after, Parents::All, each)
        })
    }

    /// Writes all files of a container to `out`, as an uncompressed tar archive. It need not be mounted, and should be at
    /// rest. The same files give the same bytes.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such container; `Corrupt` if its files have been deleted; `InUse` if a file changes while
    /// it is read; `Io` and `NoSpace` where `out` fails.
    pub fn export(&self, container: &str, out: &mut dyn Write, listener: &Listener<'_>) -> Result<Exported> {
        let (row, ready) = self.ready_container(container, listener)?;
        let done = self.with_container(&row, || self.write_archive(&row, &ready, out))?;
        Ok(Exported { bytes: done.bytes, entries: done.entries, sockets: done.sockets })
    }

    fn write_archive(&self, row: &ContainerRow, ready: &Ready, out: &mut dyn Write) -> Result<Diffed> {
        let rootfs = self.rootfs_of(&format!("container {}", row.name), &ready.trees())?;
        self.writing(out, |out| {
            let out = BufWriter::with_capacity(BUFFER, out);
            let (done, mut out) = export(&rootfs, Holes::Fill, out).map_err(|error| match error {
                Error::Tree {
                    source: DiffError::Output(layerstore_tar::Error::Io { source, .. }), ..
                } => Error::Output { source },
                error => error,
            })?;
            out.flush().map_err(|source| Error::Output { source })?;
            Ok(done)
        })
    }

    /// Makes an image of a container: that it was made from, with one more layer. The container stays as it is, and
    /// should be at rest. An image with the name `name` loses it.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such container; `Corrupt` if its files have been deleted, or the store has lost a blob of
    /// its image; `InUse` if a file changes while it is read.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> layerstore::Result<()> {
    /// use layerstore::CommitOptions;
    ///
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let name = "localhost/web:2".parse()?;
    /// let built = store.commit("web", Some(&name), &CommitOptions::default(), &|_| {})?;
    /// println!("{}", built.id);
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit(
        &self,
        container: &str,
        name: Option<&Reference>,
        options: &CommitOptions,
        listener: &Listener<'_>,
    ) -> Result<Built> {
        self.store.settle()?;
        let (row, ready) = self.ready_container(container, listener)?;
        let image = self.image_of(&row)?;
        let Some(tree) = &ready.own else {
            return Err(Error::NoContainer { name: container.to_owned() });
        };
        let upper = self.store.layout().diff(tree);
        let is_whole = || self.refuse_gone(&row);
        self.with_container(&row, || {
            self.commit_tree(Some(&image), &upper, name, options, &is_whole, listener)
        })
    }

    fn image_of(&self, row: &ContainerRow) -> Result<ImageInfo> {
        let image = self.store.image_info(&row.manifest)?;
        image.ok_or_else(|| Error::NoImage { name: row.image.clone() })
    }
}
