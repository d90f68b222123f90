//! Listing all images of an owner.
//!
//! Each table is read once, in its own order, and they are put together here: a join would look every layer of every
//! image up in several trees of the database, which takes ten times as long. Whoever wants one image joins
//! ([`Store::images_named`](crate::Store::images_named)).

use std::collections::HashSet;

use foldhash::HashMap;
use rusqlite::{Connection, Row};

use crate::blob::parse_digest;
use crate::error::{DbContext as _, Result};
use crate::image::{ImageInfo, ImageRow};
use crate::key::Key;

const ACTION: &str = "list images";

/// Every reference of `owner` with every image that it leads to: by name, and the images of one name in the order in
/// which its index has them.
pub(crate) fn images(db: &Connection, owner: &str) -> Result<Vec<ImageRow>> {
    let mut names = Vec::new();
    let query =
        "SELECT name, target, updated_at, pulled_at, pinned FROM reference WHERE owner = ?1 ORDER BY name";
    each(db, query, [owner], |row| {
        names.push(ImageRow {
            name: text(row, 0)?.to_owned(),
            target: parse_digest(text(row, 1)?)?,
            updated_at: row.get(2).db(ACTION)?,
            pulled_at: row.get(3).db(ACTION)?,
            pinned: row.get(4).db(ACTION)?,
            image: None,
        });
        Ok(())
    })?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let images = all_images(db)?;
    let below = manifests_below(db)?;
    let mut rows = Vec::with_capacity(names.len());
    for name in names {
        let key = Key::Digest(name.target.clone());
        let mut found = reached(&key, &below);
        found.retain(|(_, digest)| images.contains_key(*digest));
        found.sort_unstable();
        // An image to which several ways lead counts once.
        let mut seen = HashSet::new();
        found.retain(|(_, digest)| seen.insert(*digest));
        // An index is no image itself: its own row counts only where it leads to none.
        if found.is_empty() {
            rows.push(name);
            continue;
        }
        rows.extend(
            found
                .into_iter()
                .map(|(_, digest)| ImageRow { image: images.get(digest).cloned(), ..name.clone() }),
        );
    }
    Ok(rows)
}

/// Every image by its manifest.
fn all_images(db: &Connection) -> Result<HashMap<Key, ImageInfo>> {
    let sizes = sizes(db)?;
    let mut images = HashMap::default();
    let query = "SELECT manifest, config, platform, created, labels, last_used_at FROM image";
    each(db, query, [], |row| {
        let manifest = text(row, 0)?;
        let key = Key::of(manifest);
        let info = ImageInfo {
            manifest: parse_digest(manifest)?,
            config: parse_digest(text(row, 1)?)?,
            platform: text(row, 2)?.to_owned(),
            created: row.get(3).db(ACTION)?,
            labels: serde_json::from_str(text(row, 4)?).unwrap_or_default(),
            last_used_at: row.get(5).db(ACTION)?,
            size: sizes.get(&key).copied().unwrap_or(0),
        };
        images.insert(key, info);
        Ok(())
    })?;
    Ok(images)
}

/// Bytes of all layers of each image that has any: unpacked where they are unpacked, else of their blobs.
fn sizes(db: &Connection) -> Result<HashMap<Key, u64>> {
    let trees = numbers(db, "SELECT diff_id, bytes FROM tree WHERE diff_id IS NOT NULL")?;
    // Mostly nobody needs them.
    let mut blobs: Option<HashMap<Key, u64>> = None;
    let mut sizes = HashMap::default();
    let mut last = String::new();
    let mut sum = 0_u64;
    each(db, "SELECT manifest, diff_id, blob FROM image_layer ORDER BY manifest", [], |row| {
        let manifest = text(row, 0)?;
        if manifest != last {
            if !last.is_empty() {
                sizes.insert(Key::of(&last), sum);
            }
            manifest.clone_into(&mut last);
            sum = 0;
        }
        let bytes = match trees.get(&Key::of(text(row, 1)?)) {
            Some(bytes) => Some(*bytes),
            None => {
                if blobs.is_none() {
                    blobs = Some(numbers(db, "SELECT digest, size FROM blob")?);
                }
                let blob = Key::of(text(row, 2)?);
                blobs.as_ref().and_then(|blobs| blobs.get(&blob)).copied()
            }
        };
        sum = sum.saturating_add(bytes.unwrap_or(0));
        Ok(())
    })?;
    if !last.is_empty() {
        sizes.insert(Key::of(&last), sum);
    }
    Ok(sizes)
}

fn numbers(db: &Connection, query: &str) -> Result<HashMap<Key, u64>> {
    let mut numbers = HashMap::default();
    each(db, query, [], |row| {
        numbers.insert(Key::of(text(row, 0)?), row.get(1).db(ACTION)?);
        Ok(())
    })?;
    Ok(numbers)
}

/// The manifests and indexes that each index names, with the position at which it does.
type Below = HashMap<Key, Vec<(i64, Key)>>;

fn manifests_below(db: &Connection) -> Result<Below> {
    let mut below = Below::default();
    each(db, "SELECT parent, child, position FROM edge WHERE kind = 'manifest'", [], |row| {
        let child = (row.get(2).db(ACTION)?, Key::of(text(row, 1)?));
        below.entry(Key::of(text(row, 0)?)).or_default().push(child);
        Ok(())
    })?;
    Ok(below)
}

/// All that `target` leads to, itself among them, each with the positions at which it is named.
fn reached<'a>(target: &'a Key, below: &'a Below) -> Vec<(i64, &'a Key)> {
    let mut reached = vec![(0, target)];
    if !below.contains_key(target) {
        return reached;
    }
    let mut seen = HashSet::from([(0, target)]);
    let mut next = 0;
    while let Some((_, digest)) = reached.get(next) {
        for (position, child) in below.get(*digest).into_iter().flatten() {
            if seen.insert((*position, child)) {
                reached.push((*position, child));
            }
        }
        next += 1;
    }
    reached
}

fn each<P: rusqlite::Params>(
    db: &Connection,
    query: &str,
    parameters: P,
    mut row: impl FnMut(&Row<'_>) -> Result<()>,
) -> Result<()> {
    let mut statement = db.prepare_cached(query).db(ACTION)?;
    let mut rows = statement.query(parameters).db(ACTION)?;
    while let Some(next) = rows.next().db(ACTION)? {
        row(next)?;
    }
    Ok(())
}

/// A column's text, which is not copied.
fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str> {
    row.get_ref(column).and_then(|value| Ok(value.as_str()?)).db(ACTION)
}

#[cfg(test)]
mod tests {
    use layerstore_oci::Digest;
    use rusqlite::Connection;

    use super::Key;
    use crate::{ImageRow, LOCAL, Store, Surroundings};

    fn digest(name: &str) -> String {
        Digest::sha256_of(name.as_bytes()).to_string()
    }

    struct Lab {
        store: Store,
        db: Connection,
        _dir: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("store"), Surroundings::default()).unwrap();
            let db = Connection::open(store.layout().database()).unwrap();
            Self { store, db, _dir: dir }
        }

        fn blob(&self, name: &str, size: u64) -> String {
            let digest = digest(name);
            let statement = "INSERT OR IGNORE INTO blob (digest, size, created_at) VALUES (?1, ?2, 1)";
            self.db.execute(statement, (&digest, size)).unwrap();
            digest
        }

        /// An image of these layers; those with bytes are unpacked.
        fn image(&self, name: &str, layers: &[(&str, Option<u64>)]) {
            let manifest = self.blob(name, 1);
            let statement = "INSERT INTO image (manifest, config, platform, created, labels) \
                             VALUES (?1, ?2, 'linux/amd64', 5, '{\"a\":\"b\"}')";
            self.db.execute(statement, (&manifest, digest(&format!("config of {name}")))).unwrap();
            for (position, (layer, bytes)) in layers.iter().enumerate() {
                let diff_id = digest(&format!("diff of {layer}"));
                let statement =
                    "INSERT INTO image_layer (manifest, position, blob, diff_id) VALUES (?1, ?2, ?3, ?4)";
                self.db.execute(statement, (&manifest, position, digest(layer), &diff_id)).unwrap();
                if let Some(bytes) = bytes {
                    let statement = "INSERT OR IGNORE INTO tree (id, diff_id, bytes, allocated, inodes, boot_id, mount_id, \
                                     created_at) VALUES (?1, ?2, ?3, 0, 0, '', 0, 0)";
                    self.db.execute(statement, (format!("tree{layer:>4}"), &diff_id, bytes)).unwrap();
                }
            }
        }

        fn index(&self, name: &str, children: &[&str]) {
            let parent = self.blob(name, 1);
            for (position, child) in children.iter().enumerate() {
                let statement =
                    "INSERT INTO edge (parent, child, kind, position) VALUES (?1, ?2, 'manifest', ?3)";
                self.db.execute(statement, (&parent, digest(child), position)).unwrap();
            }
        }

        fn name(&self, owner: &str, name: &str, target: &str) {
            let statement = "INSERT INTO reference (owner, name, target, created_at, updated_at) VALUES (?1, ?2, ?3, 1, 2)";
            self.db.execute(statement, (owner, name, digest(target))).unwrap();
        }

        /// The list, which must be the same as the database puts it together.
        #[track_caller]
        fn list(&self, owner: &'static str) -> Vec<ImageRow> {
            let rows = self.store.images(owner).unwrap();
            assert_eq!(rows, self.store.images_where("owner = ?1", [owner]).unwrap());
            rows
        }
    }

    #[test]
    fn keys_are_different_where_texts_are() {
        let sha256 = digest("x");
        let upper = sha256.to_uppercase().replace("SHA256", "sha256");
        let sha512 = format!("sha512:{}{}", &sha256[7..], &sha256[7..]);
        let short = &sha256[..sha256.len() - 2];
        let keys: std::collections::HashSet<Key> =
            [&*sha256, &digest("y"), &upper, &sha512, short, &sha256[7..], "", "sha256:"].map(Key::of).into();
        assert_eq!(keys.len(), 8);
        assert_eq!(Key::of(&sha256), Key::of(&sha256.clone()));
    }

    #[test]
    fn sizes_are_of_trees_and_else_of_blobs() {
        let lab = Lab::new();
        lab.blob("1", 10);
        lab.blob("2", 20);
        lab.image("both", &[("1", Some(100)), ("2", None), ("gone", None)]);
        lab.image("twice", &[("1", Some(100)), ("1", Some(100))]);
        lab.image("none", &[]);
        for name in ["both", "twice", "none"] {
            lab.name(LOCAL, name, name);
        }
        let sizes: Vec<_> =
            lab.list(LOCAL).into_iter().map(|row| (row.name, row.image.unwrap().size)).collect();
        assert_eq!(sizes, [("both".into(), 120), ("none".into(), 0), ("twice".into(), 200)]);
    }

    #[test]
    fn names_lead_to_images_as_their_indexes_say() {
        let lab = Lab::new();
        lab.image("a", &[("1", Some(1))]);
        lab.image("b", &[("2", Some(2))]);
        lab.image("c", &[("3", Some(3))]);
        lab.blob("artifact", 1);
        lab.index("of c and b", &["c", "missing", "b"]);
        lab.index("of indexes", &["of c and b", "a", "c"]);
        lab.index("of nothing", &["missing", "artifact"]);
        for target in ["a", "artifact", "of c and b", "of indexes", "of nothing"] {
            lab.name(LOCAL, target, target);
            lab.name(LOCAL, &format!("{target} again"), target);
        }
        lab.name("another", "a", "b");
        let rows = lab.list(LOCAL);
        let of = |name: &str| -> Vec<Option<String>> {
            let rows = rows.iter().filter(|row| row.name == name);
            rows.map(|row| row.image.as_ref().map(|image| image.manifest.to_string())).collect()
        };
        assert_eq!(of("a"), [Some(digest("a"))]);
        assert_eq!(of("artifact"), [None]);
        assert_eq!(of("of c and b"), [Some(digest("c")), Some(digest("b"))]);
        assert_eq!(of("of indexes").len(), 3, "c comes twice");
        assert_eq!(of("of nothing again"), [None]);
        assert_eq!(lab.list("another").len(), 1);
        assert!(lab.list("nobody").is_empty());
    }

    #[test]
    fn images_are_found_by_the_beginning_of_any_digest_that_leads_to_them() {
        let lab = Lab::new();
        lab.image("a", &[("1", Some(1))]);
        lab.image("b", &[("2", Some(2))]);
        lab.index("of b", &["b", "missing"]);
        lab.index("of indexes", &["of b"]);
        for name in ["a", "of b", "of indexes"] {
            lab.name(LOCAL, name, name);
        }
        lab.name("another", "b", "b");
        let found = |name: &str, digits: usize| -> Vec<String> {
            let hex = &digest(name)[7..][..digits];
            let rows = lab.store.images_by_digest(LOCAL, hex).unwrap();
            let all = lab.store.images(LOCAL).unwrap();
            assert!(rows.iter().all(|row| all.contains(row)), "as they are listed");
            rows.into_iter().map(|row| row.name).collect()
        };
        for digits in [12, 64] {
            assert_eq!(found("a", digits), ["a"]);
            assert_eq!(found("config of a", digits), ["a"]);
            assert_eq!(found("b", digits), ["of b", "of indexes"]);
            assert_eq!(found("config of b", digits), ["of b", "of indexes"]);
            assert_eq!(found("of b", digits), ["of b", "of indexes"]);
            assert_eq!(found("of indexes", digits), ["of indexes"]);
            assert!(found("missing", digits).is_empty());
        }
        // `f` is the last digit, behind which others must not be left out.
        assert_eq!(lab.store.images_by_digest(LOCAL, "").unwrap().len(), 3);
    }
}
