//! What lies below the root without a row, and what has a row without a file.
//!
//! Trees and blobs are counted when they are published, so only what else there is has to be walked. The directories are
//! listed before the rows are read: what is published meanwhile then has a row, or is looked up again at the end.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use foldhash::HashSet;
use layerstore_oci::Digest;
use rusqlite::Connection;
use rustix::fs::{CWD, FileType, Statx};
use rustix::io::Errno;

use crate::blob::parse_digest;
use crate::error::{DbContext as _, IoContext as _, Result};
use crate::layout::{Layout, TreeId};
use crate::lock::Key;
use crate::place::{Entry, Place};
use crate::session;
use crate::size::Size;
use crate::store::Store;
use crate::walk::{
    Found, Home, Name, blocks, in_parallel, is_directory, is_linked, is_untouched, list, open_own, size_of,
};

/// What a store has beside its blobs and trees.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// The directories of sessions.
    pub ingests: Vec<IngestSpace>,
    /// Downloads under way and interrupted ones.
    pub partials: Vec<(Digest, Size)>,
    /// What waits to be unlinked.
    pub trash: Size,
    /// The database, the locks, the reserve, and the directories that every store has.
    pub database: Size,
    /// What nothing explains.
    pub unknown: Vec<Unknown>,
    /// Rows whose file or directory is not there.
    pub missing: Vec<Missing>,
}

/// What a session has not completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestSpace {
    /// The session's ID.
    pub name: OsString,
    /// Whether its process lives.
    pub alive: bool,
    /// What it takes.
    pub size: Size,
}

/// Something below the root that no row and no name of the store's own explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Where it is. Names may be any bytes.
    pub path: PathBuf,
    /// What it takes with everything below it, mounts excluded. Files that are also names of counted ones count there.
    pub size: Size,
}

/// A row without what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// A blob without a file.
    Blob(Digest),
    /// A tree without a directory.
    Tree(TreeId),
}

/// The rows that explain what is on disk.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) trees: HashSet<TreeId>,
    pub(crate) mounts: HashSet<PathBuf>,
}

/// What a walk counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    Database,
    Trash,
    Ingest(usize),
    Partial(usize),
    Unknown(usize),
}

/// A file with several names.
#[derive(Debug)]
struct Linked {
    /// Index of the walk that met it first.
    job: usize,
    size: Size,
    /// Names that nobody has met.
    others: u32,
}

/// What is below the root, before rows have been looked at.
#[derive(Debug, Default)]
struct Listing {
    scan: Scan,
    jobs: Vec<(Account, PathBuf)>,
    blobs: Vec<Digest>,
    trees: Vec<TreeId>,
    /// What is in the directory of each tree, if somebody has added or removed something.
    inside: Vec<Option<Box<Result<Contents>>>>,
    mounts: Vec<PathBuf>,
}

impl Store {
    /// Looks for everything below the root that is neither a blob nor a tree with a row.
    ///
    /// Nothing is held up meanwhile, and what comes and goes is counted or not. The walk stays on the mount that holds the
    /// root and follows no link.
    ///
    /// # Errors
    ///
    /// What cannot be read, other than what has gone.
    pub fn scan(&self) -> Result<Scan> {
        let home = Home::of(self.layout().root())?;
        let mut found = self.list_root(&home)?;
        // Before it is asked which of them have rows, so that this can go on beside who reads the database.
        let trees = self.layout().overlay2();
        if let Some(trees) = open_own(&home, &trees)? {
            found.inside = in_parallel(&found.trees, |id| {
                let untouched = home
                    .look(&trees, id.as_str())
                    .is_ok_and(|found| matches!(found, Found::Here(found) if is_untouched(&found)));
                (!untouched).then(|| Box::new(self.inside(&home, &trees, id)))
            });
        }
        let rows = self.rows()?;
        explain(&home, self.layout(), &mut found, &rows)?;
        let Listing { mut scan, jobs, blobs, trees, .. } = found;
        for (job, size) in jobs.iter().zip(count(&home, self.layout(), &jobs, &blobs, &trees)?) {
            match job.0 {
                Account::Database => scan.database += size,
                Account::Trash => scan.trash += size,
                Account::Ingest(index) => scan.ingests[index].size += size,
                Account::Partial(index) => scan.partials[index].1 += size,
                Account::Unknown(index) => scan.unknown[index].size += size,
            }
        }
        self.reconsider(&home, &mut scan)?;
        Ok(scan)
    }

    /// What `path` and all below it take, on the mount that holds it, hard links once. What is not there takes nothing.
    pub fn measure(&self, path: &Path) -> Result<Size> {
        let Some(home) = Home::find(path)? else { return Ok(Size::default()) };
        let (mut size, mut seen) = (Size::default(), HashSet::default());
        home.walk(path, |found| {
            if !is_linked(found) || seen.insert(found.stx_ino) {
                size += size_of(found);
            }
        })?;
        Ok(size)
    }

    /// What trees take as they are now, with all that belongs to them.
    pub fn measure_trees(&self, trees: &[TreeId]) -> Result<Vec<Size>> {
        in_parallel(trees, |id| self.measure(&self.layout().tree(id))).into_iter().collect()
    }

    /// What a tree takes beside its files: its own directory, and where overlayfs works.
    pub fn measure_beside(&self, tree: &TreeId) -> Result<u64> {
        let directory = self.layout().tree(tree);
        let own = rustix::fs::lstat(&directory).context("examine", &directory)?;
        let work = self.measure(&self.layout().work(tree))?;
        Ok(work.allocated.saturating_add(blocks(&own)))
    }

    fn inside(&self, home: &Home, trees: &OwnedFd, id: &TreeId) -> Result<Contents> {
        let path = self.layout().tree(id);
        match home.open_in(trees, id.as_str()).context("open", &path)? {
            Some(opened) => contents(&opened, &path, &Place::Tree(id.clone())),
            None => Ok(Contents::default()),
        }
    }

    fn list_root(&self, home: &Home) -> Result<Listing> {
        let mut found = Listing::default();
        let mut open = vec![(Place::Root, self.layout().root().to_owned())];
        while let Some((place, path)) = open.pop() {
            let Some(directory) = open_own(home, &path)? else { continue };
            if let Found::Here(own) = home.look(&directory, c"").context("examine", &path)? {
                found.scan.database += size_of(&own);
            }
            for Name { name, kind } in list(&directory).context("list", &path)? {
                let at = || path.join(OsStr::from_bytes(name.to_bytes()));
                let is_directory = match kind {
                    Some(kind) => kind == FileType::Directory,
                    None => match home.look(&directory, &*name).context("examine", at())? {
                        Found::Here(found) => is_directory(&found),
                        Found::Gone | Found::Elsewhere => continue,
                    },
                };
                let name = OsStr::from_bytes(name.to_bytes());
                match place.entry(name, is_directory) {
                    Entry::Folder(place) => open.push((place, at())),
                    Entry::Own => found.jobs.push((Account::Database, at())),
                    Entry::Blob(digest) => found.blobs.push(digest),
                    Entry::Tree(id) => found.trees.push(id),
                    Entry::OfTree => {}
                    Entry::Session => {
                        found.jobs.push((Account::Ingest(found.scan.ingests.len()), at()));
                        let (name, size) = (name.to_owned(), Size::default());
                        found.scan.ingests.push(IngestSpace { name, alive: false, size });
                    }
                    Entry::Partial(digest) => {
                        found.jobs.push((Account::Partial(found.scan.partials.len()), at()));
                        found.scan.partials.push((digest, Size::default()));
                    }
                    Entry::Trashed => found.jobs.push((Account::Trash, at())),
                    Entry::Mount(_) => found.mounts.push(at()),
                    Entry::Unknown if place.has_folder(name) => {
                        return Err(Errno::NOTDIR).context("list", at());
                    }
                    Entry::Unknown => found.unknown(at()),
                }
            }
        }
        if !found.scan.ingests.is_empty() {
            let _claim = self.claim(&Key::Sessions)?;
            for ingest in &mut found.scan.ingests {
                ingest.alive = !session::is_dead(&self.layout().ingest().join(&ingest.name))?;
            }
        }
        Ok(found)
    }

    pub(crate) fn rows(&self) -> Result<Rows> {
        let action = "list what is explained";
        self.database().read_all(action, |db| {
            let mut rows = Rows::default();
            each_text(db, "SELECT digest FROM blob", action, |digest| {
                rows.blobs.insert(parse_digest(digest)?);
                Ok(())
            })?;
            each_text(db, "SELECT id FROM tree", action, |id| {
                rows.trees.insert(id.parse()?);
                Ok(())
            })?;
            let mut statement = db.prepare_cached("SELECT target FROM mount").db(action)?;
            rows.mounts = statement
                .query_map([], |row| Ok(PathBuf::from(OsStr::from_bytes(&row.get::<_, Vec<u8>>(0)?))))
                .db(action)?
                .collect::<rusqlite::Result<_>>()
                .db(action)?;
            Ok(rows)
        })
    }

    /// Looks once more at what seemed to be unknown or missing: it may just have been published, or collected.
    fn reconsider(&self, home: &Home, scan: &mut Scan) -> Result<()> {
        if scan.unknown.is_empty() && scan.missing.is_empty() {
            return Ok(());
        }
        let rows = self.rows()?;
        let mut failed: Option<Errno> = None;
        let mut is_there = |path: &Path| {
            let found = home.look(CWD, path);
            !matches!(found.map_err(|errno| failed.get_or_insert(errno).to_owned()), Ok(Found::Gone))
        };
        scan.unknown.retain(|unknown| {
            is_there(&unknown.path)
                && match self.entry_at(&unknown.path, true) {
                    Some(Entry::Tree(id)) => !rows.trees.contains(&id),
                    _ => match self.entry_at(&unknown.path, false) {
                        Some(Entry::Blob(digest)) => !rows.blobs.contains(&digest),
                        _ => true,
                    },
                }
        });
        scan.missing.retain(|row| match row {
            Missing::Blob(digest) => rows.blobs.contains(digest) && !is_there(&self.layout().blob(digest)),
            Missing::Tree(id) => rows.trees.contains(id) && !is_there(&self.layout().diff(id)),
        });
        failed.map_or(Ok(()), |errno| Err(errno).context("examine", self.layout().root()))
    }

    /// What is at a path below the root, by its name.
    pub(crate) fn entry_at(&self, path: &Path, directory: bool) -> Option<Entry> {
        let (place, name) = Place::of(path.strip_prefix(self.layout().root()).ok()?)?;
        Some(place.entry(name, directory))
    }
}

fn each_text(
    db: &Connection,
    query: &str,
    action: &'static str,
    mut each: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut statement = db.prepare_cached(query).db(action)?;
    let mut rows = statement.query([]).db(action)?;
    while let Some(row) = rows.next().db(action)? {
        each(row.get_ref(0).and_then(|text| text.as_str().map_err(Into::into)).db(action)?)?;
    }
    Ok(())
}

/// Takes what has no row, and what lies in trees and mount points, for unknown; notes what is missing.
fn explain(home: &Home, layout: &Layout, found: &mut Listing, rows: &Rows) -> Result<()> {
    let (blobs, stray): (Vec<_>, Vec<_>) =
        std::mem::take(&mut found.blobs).into_iter().partition(|digest| rows.blobs.contains(digest));
    for digest in stray {
        found.unknown(layout.blob(&digest));
    }
    let mut trees = Vec::with_capacity(found.trees.len());
    let mut lost = HashSet::default();
    let inside = std::mem::take(&mut found.inside);
    for (id, inside) in std::mem::take(&mut found.trees).into_iter().zip(inside) {
        if !rows.trees.contains(&id) {
            found.unknown(layout.tree(&id));
            continue;
        }
        if let Some(inside) = inside {
            let (names, strays) = (*inside)?;
            for path in strays {
                found.unknown(path);
            }
            if !names.iter().any(|name| name == "diff") {
                lost.insert(id.clone());
            }
        }
        trees.push(id);
    }
    // All that was found has a row: only where there are fewer something is missing.
    if blobs.len() < rows.blobs.len() {
        let present: HashSet<&Digest> = blobs.iter().collect();
        let missing = rows.blobs.iter().filter(|digest| !present.contains(digest));
        found.scan.missing.extend(missing.cloned().map(Missing::Blob));
    }
    if trees.len() - lost.len() < rows.trees.len() {
        let present: HashSet<&TreeId> = trees.iter().filter(|id| !lost.contains(id)).collect();
        let missing = rows.trees.iter().filter(|id| !present.contains(id));
        found.scan.missing.extend(missing.cloned().map(Missing::Tree));
    }
    (found.blobs, found.trees) = (blobs, trees);
    for path in std::mem::take(&mut found.mounts) {
        let Found::Here(own) = home.look(CWD, &path).context("examine", &path)? else { continue };
        let Some(directory) = open_own(home, &path)? else { continue };
        let (_, inside) = contents(&directory, &path, &Place::Mount(OsString::new()))?;
        if inside.is_empty() || rows.mounts.contains(&path) {
            found.scan.database += size_of(&own);
            for path in inside {
                found.unknown(path);
            }
        } else {
            found.unknown(path);
        }
    }
    Ok(())
}

/// Walks. A file with several names counts where it was met first, but for its blob or tree if it has one.
fn count(
    home: &Home,
    layout: &Layout,
    jobs: &[(Account, PathBuf)],
    blobs: &[Digest],
    trees: &[TreeId],
) -> Result<Vec<Size>> {
    let links: Mutex<HashMap<u64, Linked>> = Mutex::default();
    let locked = || links.lock().unwrap_or_else(PoisonError::into_inner);
    let numbered: Vec<_> = jobs.iter().enumerate().collect();
    let counted = in_parallel(&numbered, |(job, (_, path))| {
        let mut size = Size::default();
        home.walk(path, |found| {
            if is_linked(found) {
                match locked().entry(found.stx_ino) {
                    Occupied(mut known) => {
                        let known = known.get_mut();
                        known.others = known.others.saturating_sub(1);
                        return;
                    }
                    Vacant(place) => {
                        let others = found.stx_nlink - 1;
                        place.insert(Linked { job: *job, size: size_of(found), others });
                    }
                }
            }
            size += size_of(found);
        })?;
        Ok(size)
    });
    let mut sizes = counted.into_iter().collect::<Result<Vec<_>>>()?;
    // Names that were not met are those of blobs, of files in trees, or outside of the store.
    locked().retain(|_, linked| linked.others > 0);
    let sought = |found: &Statx| -> Option<Linked> {
        if is_linked(found) { locked().remove(&found.stx_ino) } else { None }
    };
    let paths = blobs.iter().map(|digest| layout.blob(digest)).chain(trees.iter().map(|id| layout.tree(id)));
    let paths: Vec<PathBuf> = if locked().is_empty() { Vec::new() } else { paths.collect() };
    let counted_there = in_parallel(&paths, |path| {
        let mut linked = Vec::new();
        if !locked().is_empty() {
            home.walk(path, |found| linked.extend(sought(found)))?;
        }
        Ok(linked)
    });
    for linked in counted_there.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        sizes[linked.job] = sizes[linked.job] - linked.size;
    }
    Ok(sizes)
}

impl Listing {
    fn unknown(&mut self, path: PathBuf) {
        self.jobs.push((Account::Unknown(self.scan.unknown.len()), path.clone()));
        self.scan.unknown.push(Unknown { path, size: Size::default() });
    }
}

/// What is in a directory: the names that belong there, and the paths of those that do not.
type Contents = (Vec<OsString>, Vec<PathBuf>);

fn contents(directory: &OwnedFd, path: &Path, place: &Place) -> Result<Contents> {
    let (mut names, mut strays) = (Vec::new(), Vec::new());
    for Name { name, kind } in list(directory).context("list", path)? {
        let directory = kind.is_none_or(|kind| kind == FileType::Directory);
        let name = OsStr::from_bytes(name.to_bytes());
        match place.entry(name, directory) {
            Entry::Unknown => strays.push(path.join(name)),
            _ => names.push(name.to_owned()),
        }
    }
    Ok((names, strays))
}
