//! Images and containers that another command removes while they are used.

use layerstore_oci::ErrorKind;
use layerstore_store::ContainerRow;

use crate::Layerstore;
use crate::containers::named;
use crate::error::{Error, Result};
use crate::names::Found;

/// How often an image is looked up again. A name that others give to new images all the time is not waited for.
const ATTEMPTS: usize = 4;

/// Does `work`, and does it again if something of an image was not found that was there before.
pub(crate) fn again<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let mut result = work();
    for _ in 1..ATTEMPTS {
        match &result {
            Err(Error::NoImage { .. } | Error::Evicted { .. }) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => result = work(),
            _ => break,
        }
    }
    result
}

impl Layerstore {
    /// Does `work` with the image that `name` leads to. If something of it was not found, another command may have removed
    /// it in between, or given the name to another image: so the name is looked up once more.
    pub(crate) fn with_image<T>(&self, name: &str, work: impl Fn(&Found) -> Result<T>) -> Result<T> {
        again(|| work(&self.find(name)?))
    }

    /// Does `work` with the files of a container. Whatever comes of it counts only if the container is still there: its
    /// row goes before its files, so these were all there.
    pub(crate) fn with_container<T>(
        &self,
        row: &ContainerRow,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let result = work();
        self.refuse_gone(row)?;
        result.map_err(|error| named(error, row))
    }

    /// An error if another command has removed the container since `row` was read.
    pub(crate) fn refuse_gone(&self, row: &ContainerRow) -> Result<()> {
        if self.store.find_containers(&row.id)?.is_empty() {
            return Err(Error::NoContainer { name: row.name.clone() });
        }
        Ok(())
    }
}
