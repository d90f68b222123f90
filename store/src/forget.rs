//! Forgetting what nothing keeps, and taking its files away.
//!
//! What goes is worked out beforehand, without stopping anybody. Here each row is deleted only if nothing points at it at
//! that moment, in the transaction that deletes it: what somebody has claimed meanwhile stays, and with it, since it
//! points at them, all that it needs. So no lock is held for longer than a few milliseconds, and a plan that is out of date
//! does no harm. That each object comes after all that point at it makes one pass enough.
//!
//! The conditions here are the edges of the [graph](crate::Graph), seen from the other end; a test holds the two against
//! each other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use layerstore_oci::{Digest, ErrorKind};
use rusqlite::{OptionalExtension as _, Transaction};

use crate::clock::UnixSeconds;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, Result};
use crate::graph::Object;
use crate::layout::TreeId;
use crate::lock::Key;
use crate::reference;
use crate::snapshot::is_chain;
use crate::store::Store;
use crate::tables::Tables;

/// A name to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untag {
    /// Whose it is.
    pub owner: String,
    /// The name.
    pub name: String,
    /// What it stood for when this was decided: it stays if it stands for something else by now.
    pub target: Digest,
    /// When it stays all the same.
    pub unless: Unless,
}

/// When a name stays that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unless {
    /// Never.
    Never,
    /// If it is pinned, or one of these images is mounted or has a container: then nothing is removed at all.
    Claimed(Vec<Digest>),
    /// If it is pinned, or was given or pulled again since this was decided, or an image that it leads to was used since,
    /// or is.
    Used {
        /// The images that it leads to, and when each was last used.
        images: Vec<(Digest, Option<UnixSeconds>)>,
        /// When it got its target.
        updated_at: UnixSeconds,
        /// When it was last pulled.
        pulled_at: Option<UnixSeconds>,
    },
}

/// An object to forget.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Victim {
    /// What.
    pub object: Object,
    /// Whether it goes although images need it, because it can be made or fetched again: a tree or snapshot whose blob
    /// is here, or a blob whose tree is here and durable.
    pub evicted: bool,
}

/// What [`Store::forget`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Indices of the names that are gone.
    pub names: Vec<usize>,
    /// Indices of the objects whose rows are gone. Their files go with [`Store::sweep`].
    pub victims: Vec<usize>,
}

/// How long others wait for the database at a time.
const SLICE: Duration = Duration::from_millis(15);
/// How long it is left to them then. Who waits for SQLite's lock looks after it now and then, and would not meet a moment.
const BREATH: Duration = Duration::from_millis(5);
/// How many files are renamed before others may publish again.
const CHUNK: usize = 128;

/// A step of forgetting.
enum Step<'a> {
    Name(usize, &'a Untag),
    Object(usize, &'a Victim),
}

impl Store {
    /// Removes `names`, then forgets those of `victims` that nothing points at any more, in the order given. The removal
    /// is durable when this returns.
    ///
    /// Errors: a name that is to go in any case is not there any more (`NotFound`), or is claimed by now (`InUse`); then
    /// nothing is done if these are the only names.
    pub fn forget(&self, names: &[Untag], victims: &[Victim]) -> Result<Forgotten> {
        self.durable().check()?;
        let mut forgotten = Forgotten::default();
        let names = names.iter().enumerate().map(|(index, name)| Step::Name(index, name));
        let steps: Vec<Step<'_>> = names
            .chain(victims.iter().enumerate().map(|(index, victim)| Step::Object(index, victim)))
            .collect();
        let mut next = 0;
        while next < steps.len() {
            if next > 0 {
                std::thread::sleep(BREATH);
            }
            let (names, victims, end) = self.database().write(Durability::Power, "forget objects", |tx| {
                let start = Instant::now();
                let (mut names, mut victims, mut at) = (Vec::new(), Vec::new(), next);
                while at < steps.len() && (at == next || start.elapsed() < SLICE || must_follow(&steps[at])) {
                    match &steps[at] {
                        Step::Name(index, name) if self.remove_name(tx, name)? => names.push(*index),
                        Step::Object(index, victim) if self.delete_row(tx, victim)? => victims.push(*index),
                        Step::Name(..) | Step::Object(..) => {}
                    }
                    at += 1;
                }
                Ok((names, victims, at))
            })?;
            forgotten.names.extend(names);
            forgotten.victims.extend(victims);
            next = end;
        }
        Ok(forgotten)
    }

    /// Forgets and takes away what was published and turned out not to be needed. What something needs stays.
    pub fn discard(&self, mut objects: Vec<Object>) -> Result<()> {
        // A tree that did not reach the disk yet needs its blob.
        objects.sort_by_key(|object| match object {
            Object::Snapshot { .. } => 0,
            Object::Tree(_) => 1,
            Object::Blob(_) => 2,
        });
        let victims: Vec<Victim> =
            objects.into_iter().map(|object| Victim { object, evicted: false }).collect();
        let gone = self.forget(&[], &victims)?.victims;
        let gone: Vec<Object> = gone.into_iter().map(|index| victims[index].object.clone()).collect();
        self.sweep(&gone).map(drop)
    }

    fn remove_name(&self, tx: &Transaction<'_>, untag: &Untag) -> Result<bool> {
        match &untag.unless {
            Unless::Never => removed(delete_name(tx, untag, "")?, untag),
            Unless::Claimed(images) => {
                for manifest in images {
                    self.refuse_claimed(tx, untag, manifest)?;
                }
                match delete_name(tx, untag, " AND NOT pinned")? {
                    0 if reference::find(tx, &untag.owner, &untag.name)?.is_some_and(|row| row.pinned) => {
                        Err(in_use(untag, "somebody who has just pinned it"))
                    }
                    count => removed(count, untag),
                }
            }
            Unless::Used { images, updated_at, pulled_at } => {
                for (manifest, last_used_at) in images {
                    if self.is_used(tx, manifest, *last_used_at)? {
                        return Ok(false);
                    }
                }
                let count = tx
                    .prepare_cached(
                        "DELETE FROM reference WHERE owner = ?1 AND name = ?2 AND target = ?3 AND NOT pinned \
                         AND updated_at = ?4 AND pulled_at IS ?5",
                    )
                    .and_then(|mut delete| {
                        let target = untag.target.to_string();
                        delete.execute((&untag.owner, &untag.name, target, updated_at, pulled_at))
                    })
                    .db("remove a name")?;
                Ok(count > 0)
            }
        }
    }

    /// Refuses what was mounted, or got a container, since it was asked for.
    fn refuse_claimed(&self, tx: &Transaction<'_>, untag: &Untag, manifest: &Digest) -> Result<()> {
        let claimed: bool = tx
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM container WHERE manifest = ?1) \
                 OR EXISTS (SELECT 1 FROM mount WHERE manifest = ?1 AND boot_id = ?2)",
            )
            .and_then(|mut query| {
                query.query_row((manifest.to_string(), &self.life().boot), |row| row.get(0))
            })
            .db("look for uses of an image")?;
        if claimed { Err(in_use(untag, "a container or mount that was just made")) } else { Ok(()) }
    }

    fn is_used(
        &self,
        tx: &Transaction<'_>,
        manifest: &Digest,
        last_used_at: Option<UnixSeconds>,
    ) -> Result<bool> {
        tx.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM image WHERE manifest = ?1 AND last_used_at IS NOT ?2) \
             OR EXISTS (SELECT 1 FROM container WHERE manifest = ?1) \
             OR EXISTS (SELECT 1 FROM lease_item WHERE kind = 'blob' AND key = ?1) \
             OR EXISTS (SELECT 1 FROM mount WHERE manifest = ?1 AND boot_id = ?3) \
             OR EXISTS (SELECT 1 FROM image AS i JOIN snapshot AS s ON s.parent = i.chain_id \
             WHERE i.manifest = ?1 AND NOT EXISTS \
             (SELECT 1 FROM tree AS t WHERE t.id = s.tree AND t.diff_id IS NOT NULL))",
        )
        .and_then(|mut query| {
            query.query_row((manifest.to_string(), last_used_at, &self.life().boot), |row| row.get(0))
        })
        .db("look for uses of an image")
    }

    fn delete_row(&self, tx: &Transaction<'_>, victim: &Victim) -> Result<bool> {
        let boot = &self.life().boot;
        match &victim.object {
            Object::Blob(digest) => tx
                .prepare_cached(BLOB)
                .and_then(|mut delete| delete.execute((digest.to_string(), boot, victim.evicted))),
            Object::Tree(id) => tx
                .prepare_cached(TREE)
                .and_then(|mut delete| delete.execute((id.as_str(), boot, victim.evicted))),
            // What is not part of an image's stack stays until it is removed.
            Object::Snapshot { key, .. } if !is_chain(key) => Ok(0),
            Object::Snapshot { owner, key } => tx
                .prepare_cached(SNAPSHOT)
                .and_then(|mut delete| delete.execute((owner, key, boot, victim.evicted))),
        }
        .map(|count| count > 0)
        .db("forget an object")
    }

    /// Takes the files of forgotten objects away: into the trash in one step, then unlinked. Whatever got a row again in
    /// the meantime stays, and so does what somebody still has mounted; a later collection takes it. Returns those
    /// whose files are gone.
    pub fn sweep(&self, objects: &[Object]) -> Result<Vec<Object>> {
        // No process can mount from now on what has no row.
        let has_trees = objects.iter().any(|object| matches!(object, Object::Tree(_)));
        let tables = if has_trees { Tables::read() } else { Tables::default() };
        let (mut trashed, mut swept) = (Vec::<PathBuf>::new(), Vec::new());
        for chunk in objects.chunks(CHUNK) {
            let _claim = self.claim(&Key::Sweep)?;
            for object in chunk {
                let path = match object {
                    Object::Blob(digest) if self.blob(digest)?.is_none() => self.layout().blob(digest),
                    Object::Tree(id) if self.is_unused(id, &tables)? => self.layout().tree(id),
                    Object::Blob(_) | Object::Tree(_) => continue,
                    Object::Snapshot { .. } => {
                        swept.push(object.clone());
                        continue;
                    }
                };
                match self.move_to_trash(&path) {
                    // A folder with many names takes a block more: on a full disk things go one by one.
                    Err(error) if error.kind() == ErrorKind::NoSpace => {
                        for path in trashed.drain(..) {
                            self.unlink_trashed(&path)?;
                        }
                        self.unlink_trashed(&path)?;
                    }
                    moved => trashed.extend(moved?),
                }
                swept.push(object.clone());
            }
        }
        for path in &trashed {
            self.unlink_trashed(path)?;
        }
        Ok(swept)
    }

    /// Whether a tree has no row and nobody has it mounted.
    fn is_unused(&self, id: &TreeId, tables: &Tables) -> Result<bool> {
        let known: Option<bool> = self.database().read("look up a tree", |db| {
            db.prepare_cached("SELECT 1 FROM tree WHERE id = ?1")
                .and_then(|mut query| query.query_row([id.as_str()], |row| row.get(0)).optional())
                .db("look up a tree")
        })?;
        Ok(known.is_none() && tables.user(id).is_none())
    }
}

/// Whether a step belongs to the same transaction as those before: a person who removes all names of an image removes all or
/// none.
fn must_follow(step: &Step<'_>) -> bool {
    matches!(step, Step::Name(_, name) if !matches!(name.unless, Unless::Used { .. }))
}

fn delete_name(tx: &Transaction<'_>, untag: &Untag, condition: &str) -> Result<usize> {
    let query = format!("DELETE FROM reference WHERE owner = ?1 AND name = ?2 AND target = ?3{condition}");
    tx.prepare_cached(&query)
        .and_then(|mut delete| delete.execute((&untag.owner, &untag.name, untag.target.to_string())))
        .db("remove a name")
}

fn removed(count: usize, untag: &Untag) -> Result<bool> {
    if count > 0 { Ok(true) } else { Err(Error::NotFound { what: "name", name: untag.name.clone() }) }
}

fn in_use(untag: &Untag, user: &str) -> Error {
    Error::InUse { what: untag.name.clone(), user: user.to_owned() }
}

// The last parameter of each is whether it is evicted: then images need it, and it must be possible to have it again.

/// One that other images or indexes name for anything but a layer cannot be made from a tree. One of an image that was
/// never pulled may have come since the plan was made, and nobody knows where to fetch it again.
const BLOB: &str = "
    DELETE FROM blob WHERE digest = ?1
    AND NOT EXISTS (SELECT 1 FROM reference WHERE target = ?1)
    AND NOT EXISTS (SELECT 1 FROM lease_item WHERE kind = 'blob' AND key = ?1)
    AND NOT EXISTS (SELECT 1 FROM mount WHERE manifest = ?1 AND boot_id = ?2)
    AND NOT EXISTS (SELECT 1 FROM container WHERE manifest = ?1)
    AND CASE WHEN ?3 THEN
        EXISTS (SELECT 1 FROM tree WHERE diff_id = blob.diff_id AND synced = 1)
        AND NOT EXISTS (SELECT 1 FROM edge WHERE parent = ?1)
        AND NOT EXISTS (SELECT 1 FROM edge WHERE child = ?1 AND kind <> 'layer')
        AND NOT EXISTS (SELECT 1 FROM edge AS image WHERE image.child = ?1 AND NOT EXISTS (
            WITH RECURSIVE above (digest) AS (
                SELECT image.parent UNION SELECT e.parent FROM above AS a
                JOIN edge AS e ON e.child = a.digest AND e.kind = 'manifest')
            SELECT 1 FROM above JOIN reference AS r ON r.target = above.digest WHERE r.pulled_at IS NOT NULL))
    ELSE
        NOT EXISTS (SELECT 1 FROM edge WHERE child = ?1)
        AND NOT EXISTS (SELECT 1 FROM tree WHERE diff_id = blob.diff_id AND synced = 0)
    END";

const TREE: &str = "
    DELETE FROM tree WHERE id = ?1
    AND NOT EXISTS (SELECT 1 FROM snapshot WHERE tree = ?1)
    AND NOT EXISTS (SELECT 1 FROM snapshot WHERE fixup = ?1)
    AND NOT EXISTS (SELECT 1 FROM lease_item WHERE kind = 'tree' AND key = tree.diff_id)
    AND NOT EXISTS (SELECT 1 FROM mount_tree JOIN mount USING (target, namespace)
                    WHERE mount_tree.tree = ?1 AND mount.boot_id = ?2)
    AND CASE WHEN ?3 THEN
        EXISTS (SELECT 1 FROM blob WHERE diff_id = tree.diff_id)
    ELSE
        NOT EXISTS (SELECT 1 FROM image_layer WHERE diff_id = tree.diff_id)
    END";

const SNAPSHOT: &str = "
    DELETE FROM snapshot WHERE owner = ?1 AND key = ?2 AND kind = 'committed'
    AND NOT EXISTS (SELECT 1 FROM snapshot AS above WHERE above.owner = ?1 AND above.parent = ?2)
    AND NOT EXISTS (SELECT 1 FROM mount WHERE mount.owner = ?1 AND mount.key = ?2 AND boot_id = ?3)
    AND NOT EXISTS (SELECT 1 FROM tree WHERE id = snapshot.tree AND diff_id IS NULL)
    AND (?4 OR ?1 <> 'local' OR NOT EXISTS (SELECT 1 FROM image WHERE chain_id = ?2))";
