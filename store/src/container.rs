//! Containers: active snapshots of images that people give names to.

use layerstore_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::blob::parse_digest;
use crate::clock::UnixSeconds;
use crate::error::{DbContext as _, Error, Result};
use crate::last_use;
use crate::mount::Use;
use crate::reference::LOCAL;
use crate::snapshot::{Discarded, Labels, NewSnapshot, Settings, SnapshotInfo, WritableTree};
use crate::store::Store;

/// A container to record.
#[derive(Debug, Clone)]
pub struct NewContainer {
    /// 64 hexadecimal digits; the key of its snapshot.
    pub id: String,
    /// Its name, which no other has.
    pub name: String,
    /// The image's manifest.
    pub manifest: Digest,
    /// The image as it was asked for.
    pub image: String,
    /// Labels.
    pub labels: Labels,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRow {
    /// 64 hexadecimal digits; the key of its snapshot, whose owner is [`LOCAL`].
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image's manifest, which is kept as long as the container.
    pub manifest: Digest,
    /// The image's config, and with it the image ID.
    pub config: Option<Digest>,
    /// The image as it was asked for.
    pub image: String,
    /// Labels.
    pub labels: Labels,
    /// How it is mounted.
    pub settings: Settings,
    /// When it was created.
    pub created_at: UnixSeconds,
}

impl Store {
    /// Records a container and its snapshot in one durable step. A name or ID that is taken is an error of kind
    /// `AlreadyExists`.
    pub fn insert_container(
        &self,
        container: &NewContainer,
        snapshot: &NewSnapshot,
        tree: WritableTree,
    ) -> Result<SnapshotInfo> {
        let action = "record a container";
        self.insert_snapshot_with(snapshot, Some(tree), |tx| {
            let taken = tx
                .prepare_cached("SELECT id FROM container WHERE name = ?1")
                .and_then(|mut query| query.query_row([&container.name], |row| row.get(0)).optional())
                .db(action)?;
            if let Some(id) = taken {
                return Err(Error::NameTaken { name: container.name.clone(), id });
            }
            if crate::blob::find(tx, &container.manifest)?.is_none() {
                return Err(Error::NoBlob { digest: container.manifest.clone() });
            }
            last_use::mark_image(tx, &container.manifest.to_string(), self.clock().now())?;
            let labels = serde_json::to_string(&container.labels).unwrap_or_default();
            tx.execute(
                "INSERT INTO container (id, owner, name, manifest, image, labels, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                (
                    &container.id,
                    LOCAL,
                    &container.name,
                    container.manifest.to_string(),
                    &container.image,
                    labels,
                    self.clock().now(),
                ),
            )
            .db(action)?;
            Ok(())
        })
    }

    /// All containers, the latest first.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        let action = "list containers";
        self.database().read(action, |db| {
            let query = format!("{QUERY} ORDER BY c.created_at DESC, c.rowid DESC");
            let mut statement = db.prepare_cached(&query).db(action)?;
            let rows = statement.query_map([], |row| Ok(from_row(row))).db(action)?;
            rows.map(|row| row.db(action)?).collect()
        })
    }

    /// The containers of an image, by name.
    pub fn containers_of(&self, config: &Digest) -> Result<Vec<ContainerRow>> {
        let mut found = self.containers()?;
        found.retain(|row| row.config.as_ref() == Some(config));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The containers with this name or ID, or with an ID that begins like this.
    pub fn find_containers(&self, text: &str) -> Result<Vec<ContainerRow>> {
        let action = "look up a container";
        self.database().read(action, |db| {
            let exact = select(db, "c.name = ?1 OR c.id = ?1", text)?;
            let is_prefix = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
            if !exact.is_empty() || !is_prefix {
                return Ok(exact);
            }
            select(db, "substr(c.id, 1, length(?1)) = ?1", text)
        })
    }

    /// Refuses a container in a use that `refused` says, before anything is done to it.
    pub fn refuse_container_in_use(&self, id: &str, refused: Use) -> Result<()> {
        self.refuse_used(LOCAL, id, refused)
    }

    /// Gives a container another name, durably.
    pub fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        let action = "rename a container";
        self.database().write(crate::db::Durability::Power, action, |tx| {
            if let Some(other) = select(tx, "c.name = ?1", name)?.into_iter().find(|row| row.id != id) {
                return Err(Error::NameTaken { name: name.to_owned(), id: other.id });
            }
            match tx.execute("UPDATE container SET name = ?2 WHERE id = ?1", (id, name)).db(action)? {
                0 => Err(Error::NotFound { what: "container", name: id.to_owned() }),
                _ => Ok(()),
            }
        })
    }

    /// Forgets a container with its snapshot, durably. One that is mounted, or otherwise in a use that `refused` says, is
    /// an error of kind `InUse`.
    pub fn remove_container(&self, id: &str, refused: Use) -> Result<Discarded> {
        let action = "remove a container";
        self.remove_snapshot_with(LOCAL, id, refused, |tx| {
            // Until now its image was in use.
            last_use::mark_container(tx, LOCAL, id, self.clock().now())?;
            tx.execute("DELETE FROM container WHERE id = ?1", [id]).db(action)?;
            Ok(())
        })
    }
}

/// Refuses what would take a container's snapshot away.
pub(crate) fn refuse_owned(tx: &Transaction<'_>, owner: &str, key: &str) -> Result<()> {
    let action = "look for the container of a snapshot";
    let name: Option<String> = tx
        .prepare_cached("SELECT name FROM container WHERE owner = ?1 AND id = ?2")
        .and_then(|mut query| query.query_row((owner, key), |row| row.get(0)).optional())
        .db(action)?;
    match name {
        None => Ok(()),
        Some(name) => {
            Err(Error::InUse { what: format!("snapshot {key}"), user: format!("container {name}") })
        }
    }
}

/// `CROSS JOIN` keeps SQLite from looking a container up for each of many snapshots.
const QUERY: &str = "SELECT c.id, c.name, c.manifest, i.config, c.image, c.labels, s.options, c.created_at \
                     FROM container AS c CROSS JOIN snapshot AS s ON s.owner = c.owner AND s.key = c.id \
                     LEFT JOIN image AS i ON i.manifest = c.manifest";

fn select(db: &Connection, condition: &str, text: &str) -> Result<Vec<ContainerRow>> {
    let action = "look up a container";
    let mut statement = db.prepare_cached(&format!("{QUERY} WHERE {condition} LIMIT 10")).db(action)?;
    let rows = statement.query_map([text], |row| Ok(from_row(row))).db(action)?;
    rows.map(|row| row.db(action)?).collect()
}

fn from_row(row: &Row<'_>) -> Result<ContainerRow> {
    let action = "read a container";
    let (labels, settings): (String, String) = (row.get(5).db(action)?, row.get(6).db(action)?);
    Ok(ContainerRow {
        id: row.get(0).db(action)?,
        name: row.get(1).db(action)?,
        manifest: parse_digest(&row.get::<_, String>(2).db(action)?)?,
        config: row.get::<_, Option<String>>(3).db(action)?.as_deref().map(parse_digest).transpose()?,
        image: row.get(4).db(action)?,
        labels: serde_json::from_str(&labels)
            .map_err(|_| Error::InvalidRow { what: "set of labels", value: labels })?,
        settings: Settings::parse(&settings)?,
        created_at: row.get(7).db(action)?,
    })
}
