//! Moving to the trash what nothing explains.
//!
//! It is looked at again under the claim with which publishers and makers of trees keep out whoever throws away files
//! without a row. What is mounted, or has something mounted in it, stays: renaming takes the mounts along, and unlinking
//! would then reach into them, or take away what a container still has.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use layerstore_oci::Digest;
use rustix::fs::CWD;
use rustix::io::Errno;

use crate::error::{Error, IoContext as _, Result};
use crate::layout::TreeId;
use crate::lock::Key;
use crate::place::{Entry, Place};
use crate::scan::Unknown;
use crate::store::Store;
use crate::tables::Tables;
use crate::walk::{Found, Home, is_directory};

/// What became of something unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discard {
    /// What it was.
    pub unknown: Unknown,
    /// What became of it.
    pub fate: Fate,
}

/// What became of something that was to be thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is in the trash, under this path.
    Trashed(PathBuf),
    /// A whole blob of an interrupted pull, which the next attempt takes as a download.
    Resumable,
    /// By now it is explained, or it has gone.
    Explained,
    /// It stays: it is used, by this.
    Used(String),
    /// It stays: it is on another filesystem.
    Elsewhere,
}

impl Fate {
    pub(crate) fn is_trashed(&self) -> bool {
        matches!(self, Self::Trashed(_))
    }
}

/// Things are looked at in portions of this number, so that nobody who publishes waits for long.
pub(crate) const PORTION: usize = 64;

impl Store {
    /// Moves to the trash what is still unknown, and says what became of each. Nothing is unlinked.
    ///
    /// Safe beside everything that other processes do. What is bound to be published, mounted or continued stays.
    ///
    /// # Errors
    ///
    /// Where something can neither be moved nor be said to be in use. What was moved before stays in the trash.
    pub fn discard_unknown(&self, unknown: &[Unknown]) -> Result<Vec<Discard>> {
        self.sort(unknown, Sorter::new)
    }

    /// Says what [`Store::discard_unknown`] would do, and does nothing; with `interrupted` as if no interrupted pull wanted
    /// to go on with anything.
    ///
    /// # Errors
    ///
    /// What cannot be read.
    pub fn judge_unknown(&self, unknown: &[Unknown], interrupted: bool) -> Result<Vec<Discard>> {
        self.sort(unknown, |store| {
            let sorter = Sorter::new(store)?;
            Ok(Sorter { dry: true, resumable: sorter.resumable && !interrupted, ..sorter })
        })
    }

    fn sort<'a>(
        &'a self,
        unknown: &[Unknown],
        sorter: impl Fn(&'a Self) -> Result<Sorter<'a>>,
    ) -> Result<Vec<Discard>> {
        let mut done = Vec::with_capacity(unknown.len());
        for portion in unknown.chunks(PORTION) {
            // Who holds the second claim waits for no other.
            let _sweep = self.claim(&Key::Sweep)?;
            let _mounts = self.claim(&Key::Mounts)?;
            let mut sorter = sorter(self)?;
            for unknown in portion {
                let fate = sorter.discard(&unknown.path)?;
                done.push(Discard { unknown: unknown.clone(), fate });
            }
        }
        Ok(done)
    }
}

/// Decides on files without a row, for who holds [`Key::Sweep`] alone.
pub(crate) struct Sorter<'a> {
    store: &'a Store,
    home: Home,
    resumable: bool,
    mounted: HashSet<TreeId>,
    tables: Option<Tables>,
    /// Only says what would become of it.
    dry: bool,
}

impl<'a> Sorter<'a> {
    pub(crate) fn new(store: &'a Store) -> Result<Self> {
        Ok(Self {
            store,
            home: Home::of(store.layout().root())?,
            resumable: store.has_lasting_lease()?,
            mounted: store.mounted_trees()?,
            tables: None,
            dry: false,
        })
    }

    fn discard(&mut self, path: &Path) -> Result<Fate> {
        let layout = self.store.layout();
        let Some((place, name)) = path.strip_prefix(layout.root()).ok().and_then(Place::of) else {
            return Ok(Fate::Explained);
        };
        let directory = match self.home.look(CWD, path).context("examine", path)? {
            Found::Here(found) => is_directory(&found),
            Found::Gone => return Ok(Fate::Explained),
            Found::Elsewhere => return Ok(self.elsewhere(path)),
        };
        match place.entry(name, directory) {
            Entry::Blob(digest) => self.blob(path, &digest),
            Entry::Tree(id) => self.tree(path, &id),
            Entry::Mount(_) => {
                let known = self.store.mounts()?.iter().any(|row| row.target == path);
                let empty = fs::read_dir(path).context("list", path)?.next().is_none();
                if known || empty { Ok(Fate::Explained) } else { self.stray(path) }
            }
            Entry::Unknown if place.has_folder(name) => Err(Errno::NOTDIR).context("list", path),
            Entry::Unknown => self.stray(path),
            Entry::Folder(_)
            | Entry::Own
            | Entry::OfTree
            | Entry::Session
            | Entry::Partial(_)
            | Entry::Trashed => Ok(Fate::Explained),
        }
    }

    /// A blob without a row was whole when it got its name. If a pull was interrupted, it may have been just then: the
    /// next attempt takes it as a complete download.
    pub(crate) fn blob(&mut self, path: &Path, digest: &Digest) -> Result<Fate> {
        if self.store.blob(digest)?.is_some() {
            return Ok(Fate::Explained);
        }
        // What a stranger put there is no download.
        let regular = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        if self.resumable && regular {
            if self.dry {
                return Ok(Fate::Resumable);
            }
            let partial = self.store.layout().partial_blob(digest);
            fs::rename(path, &partial).context("keep as a download", path)?;
            return Ok(Fate::Resumable);
        }
        self.trash(path)
    }

    pub(crate) fn tree(&mut self, path: &Path, id: &TreeId) -> Result<Fate> {
        if self.store.has_tree(id)? {
            return Ok(Fate::Explained);
        }
        if self.mounted.contains(id) {
            return Ok(Fate::Used("a mount of the store".to_owned()));
        }
        if let Some(user) = self.tables().user(id) {
            return Ok(Fate::Used(user.describe(self.store.namespace())));
        }
        self.stray(path)
    }

    fn stray(&mut self, path: &Path) -> Result<Fate> {
        // Somebody has put it in a strange place, but it is theirs.
        if path.join("layerstore.db").symlink_metadata().is_ok() {
            return Ok(Fate::Used("another store that is in it".to_owned()));
        }
        let namespace = self.store.namespace();
        match self.tables().user_of(path) {
            Some(user) => Ok(Fate::Used(user.describe(namespace))),
            None => self.trash(path),
        }
    }

    fn elsewhere(&mut self, path: &Path) -> Fate {
        let namespace = self.store.namespace();
        let user = self.tables().user_of(path);
        user.map_or(Fate::Elsewhere, |user| Fate::Used(user.describe(namespace)))
    }

    fn trash(&self, path: &Path) -> Result<Fate> {
        if self.dry {
            return Ok(Fate::Trashed(path.to_owned()));
        }
        match self.store.move_to_trash(path) {
            Ok(Some(trashed)) => Ok(Fate::Trashed(trashed)),
            Ok(None) => Ok(Fate::Explained),
            Err(Error::Io { source, .. }) if is(&source, Errno::BUSY) => Ok(Fate::Used("a mount".to_owned())),
            Err(Error::Io { source, .. }) if is(&source, Errno::XDEV) => Ok(Fate::Elsewhere),
            Err(error) => Err(error),
        }
    }

    fn tables(&mut self) -> &Tables {
        self.tables.get_or_insert_with(Tables::read)
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
