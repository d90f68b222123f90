//! The image store for Linux containers, as a library.
//!
//! [`Layerstore`] is the one type to start from. Nothing here prints, reads the environment or keeps
//! global state; what an operation tells while it runs goes to the listener it is given.

mod error;
mod event;
mod fixup;
mod images;
mod info;
mod layers;
mod load;
mod mount;
mod names;
mod options;
mod remove;
mod rootfs;

use std::path::Path;

use layerstore_store::{Store, Surroundings};
use layerstore_unpack::Options;

pub use error::{Error, Result};
pub use event::{Event, LayerName, LayerState, Listener};
pub use images::{HistoryStep, ImageSummary};
pub use info::Info;
pub use layerstore_oci as oci;
pub use load::{LoadOptions, LoadReport, LoadedImage, Source};
pub use mount::Mounted;
pub use remove::{Collected, CollectedObject, Removed};
pub use rootfs::{FileEntry, FileKind, ListOptions};

/// An open image store.
#[derive(Debug)]
pub struct Layerstore {
    store: Store,
    unpack: Options,
}

impl Layerstore {
    /// Opens the store below `root`, which is created where it does not exist.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Store::open(root, Surroundings::default())?;
        Ok(Self { store, unpack: options::for_this_process() })
    }
}
