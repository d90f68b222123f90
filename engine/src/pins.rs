//! Names that no policy may take away.

use std::collections::BTreeSet;

use layerstore_store::LOCAL;

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::names::{Found, shown_name};

impl Layerstore {
    /// Pins an image: no policy takes its name away, and [`Layerstore::remove`] does so only if it is forced. A tag that
    /// is moved to another image stays pinned.
    ///
    /// A name pins that name, an ID all names of the image. Returns the names, familiar as people write them; an image
    /// without a name is pinned by its digest. What is pinned already stays so.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `InvalidInput` if several IDs begin like this.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// for name in store.pin("app:1")? {
    ///     println!("{name}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pin(&self, name: &str) -> Result<Vec<String>> {
        self.set_pinned(name, true)
    }

    /// Ends what [`Layerstore::pin`] began. What is not pinned stays so.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::pin`].
    pub fn unpin(&self, name: &str) -> Result<Vec<String>> {
        self.set_pinned(name, false)
    }

    fn set_pinned(&self, name: &str, pinned: bool) -> Result<Vec<String>> {
        let found = self.find(name)?;
        let names = match found.by_name {
            Some(name) => vec![name],
            None => found.names,
        };
        for name in &names {
            self.store.set_pinned(LOCAL, name, pinned)?;
        }
        Ok(names.iter().map(|name| shown_name(name)).collect())
    }
}

/// Refuses to take pinned names away.
pub(crate) fn refuse_pinned(name: &str, found: &Found, untag: &[String]) -> Result<()> {
    let pinned: BTreeSet<&String> = untag.iter().filter(|name| found.pinned.contains(name)).collect();
    if pinned.is_empty() {
        return Ok(());
    }
    let names = pinned.into_iter().map(|name| shown_name(name)).collect();
    Err(Error::Pinned { name: name.to_owned(), names })
}
