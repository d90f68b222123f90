//! Making new images: from what a container wrote, and from a root filesystem.
//!
//! Both go the way of a loaded layer: a feeder receives the blob, unpackers read behind it, the publisher makes it
//! durable (see [`crate::layers`]). Then config and manifest follow, and one durable transaction adds the image and
//! its name. All of it is under the session's lease until then; after a failure nothing of it stays.
//!
//! The same content gives the same bytes where the time is given ([`CommitOptions::created`]): the layer's files come
//! in a fixed order, compression does not depend on the machine's threads, and documents have their fields in a fixed
//! order.

mod config;
mod document;
mod import;
mod layer;
mod source;
#[cfg(test)]
mod tests;

use std::path::Path;

use layerstore_oci::{Change, Compression, DiffId, Digest, Platform, Reference};
use layerstore_store::{ImageInfo, LOCAL, Object, Session};

pub use self::import::ImportOptions;

use self::config::{Step, base_config, new_config, with_layer};
use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::{Event, Listener};
use crate::names::refuse_reserved;

/// How to make an image of what a container wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOptions {
    /// Who made it. Without it the author of the image below stays.
    pub author: Option<String>,
    /// What was done, for the image's history.
    pub message: Option<String>,
    /// The command that ran in the container, for the image's history.
    pub created_by: Option<String>,
    /// Changes to how containers of the image run.
    pub changes: Vec<Change>,
    /// How the layer is compressed.
    pub compression: Compression,
    /// When it was made, in seconds since 1970; now if not given. Then nothing in the layer is newer, see
    /// <https://reproducible-builds.org/specs/source-date-epoch/>.
    pub created: Option<i64>,
    /// Whether the layer is unpacked; if not, `mount` does it later.
    pub unpack: bool,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self {
            author: None,
            message: None,
            created_by: None,
            changes: Vec::new(),
            compression: Compression::Gzip,
            created: None,
            unpack: true,
        }
    }
}

/// A new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image ID: digest of its config.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Digest,
    /// The blob of its new layer.
    pub layer: Digest,
    /// The new layer's content.
    pub diff_id: DiffId,
    /// Bytes of that blob.
    pub size: u64,
}

impl Layerstore {
    /// Makes an image of `base` and of what was changed above it, which is in the upper directory `upper` of an
    /// overlay mount. Without `base` the directory is all of the image. An image with the name `name` loses it.
    ///
    /// The directory should be at rest: a file that changes while it is read is an error. `is_whole` is asked when it has
    /// been read, and says whether somebody was removing it.
    pub(crate) fn commit_tree(
        &self,
        base: Option<&ImageInfo>,
        upper: &Path,
        name: Option<&Reference>,
        options: &CommitOptions,
        is_whole: &dyn Fn() -> Result<()>,
        listener: &Listener<'_>,
    ) -> Result<Built> {
        check_name(name)?;
        self.check_flavour()?;
        let created = time(options.created)?;
        self.tidily(|| {
            self.leaving_nothing(|session, new| {
                let base = base.map(|base| self.base(session, base)).transpose()?;
                let mut config = match &base {
                    Some(base) => base_config(&base.config, &base.info.config)?,
                    None => new_config(&Platform::host()),
                };
                // Before the work begins.
                let step = Step {
                    created: &created,
                    created_by: options.created_by.as_deref(),
                    author: options.author.as_deref(),
                    comment: options.message.as_deref(),
                    changes: &options.changes,
                };
                step.apply(&mut config)?;
                let layer = self.diff_layer(session, upper, options, listener, new)?;
                is_whole()?;
                with_layer(&mut config, &layer.diff_id, &step);
                self.telling_what_is_lost(&names(name), listener, || {
                    self.commit_image(session, base.as_ref(), &config, layer, name, new)
                })
            })
        })
    }

    /// Does `work` in a session. What it lists as new goes again if it fails.
    fn leaving_nothing<T>(&self, work: impl FnOnce(&Session, &mut Vec<Object>) -> Result<T>) -> Result<T> {
        let mut new = Vec::new();
        let result = {
            let session = self.store.session(LOCAL)?;
            work(&session, &mut new)
        };
        if result.is_err()
            && !new.is_empty()
            && let Err(error) = self.store.discard(new)
        {
            tracing::warn!(%error, "what was made of the image stays until the next collection");
        }
        result
    }
}

/// Only a repository and a tag can be given.
fn check_name(name: Option<&Reference>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    refuse_reserved(name)?;
    if name.digest().is_some() {
        return Err(Error::DigestAsTag { name: name.familiar() });
    }
    Ok(())
}

fn names(name: Option<&Reference>) -> Vec<String> {
    name.iter().map(ToString::to_string).collect()
}

/// A time that a config can have: with a year of four digits, says RFC 3339.
fn time(seconds: Option<i64>) -> Result<jiff::Timestamp> {
    let Some(seconds) = seconds else { return Ok(jiff::Timestamp::now()) };
    let time = jiff::Timestamp::from_second(seconds).ok();
    time.filter(|time| time.to_string().len() == "1970-01-01T00:00:00Z".len())
        .ok_or(Error::BadTime { seconds })
}

/// Tells what of a directory is not in the layer.
fn tell_skipped(diffed: &layerstore_unpack::Diffed, listener: &Listener<'_>) {
    if diffed.sockets == 0 {
        return;
    }
    let shown: Vec<String> = diffed.skipped.iter().map(|path| layerstore_unpack::shown(path)).collect();
    let more = if diffed.sockets > shown.len() as u64 { ", …" } else { "" };
    let count = diffed.sockets;
    listener(Event::Note(format!("{count} sockets are not in the layer: {}{more}", shown.join(", "))));
}
