//! Writing a plan into a store.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Params, Transaction};
use serde_json::{Value, json};

use super::Planted;
use super::plan::{Image, Layer, Plan};
use crate::{digest, hex_of};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// What an empty directory takes on ext4.
const BLOCK: u64 = 4096;

/// A layer as the tables know it.
struct Written {
    diff_id: String,
    blob: String,
    blob_size: u64,
    chain: String,
}

struct Writer<'a> {
    tx: &'a Transaction<'a>,
    root: &'a Path,
    layers: Vec<Written>,
    trees: u64,
}

pub(super) fn plant(root: &Path, plan: &Plan) -> Planted {
    let mut db = Connection::open(root.join("layerstore.db")).unwrap();
    // Nobody else looks at it, and a machine that goes down takes the whole store with it.
    db.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; PRAGMA foreign_keys = OFF")
        .unwrap();
    let tx = db.transaction().unwrap();
    let mut writer = Writer { tx: &tx, root, layers: Vec::new(), trees: 0 };
    for (index, layer) in plan.layers.iter().enumerate() {
        writer.layer(index, layer);
    }
    let mut planted = Planted {
        removable: Vec::new(),
        id: String::new(),
        shared_layer: writer.layers[0].diff_id.clone(),
        container: String::new(),
    };
    let mut manifests = Vec::new();
    for (number, image) in plan.images.iter().enumerate() {
        let (manifest, config) = writer.image(number, image, &plan.stack(image.top));
        if image.names.len() == 1 && !image.pinned && !plan.containers.contains(&number) {
            if planted.removable.is_empty() {
                planted.id.clone_from(&config);
            }
            planted.removable.push(image.names[0].clone());
        }
        manifests.push(manifest);
    }
    for (number, image) in plan.containers.iter().enumerate() {
        let chain = writer.layers[plan.images[*image].top].chain.clone();
        writer.container(number, &plan.images[*image], &manifests[*image], &chain);
        planted.container = format!("container{number}");
    }
    tx.commit().unwrap();
    let broken: i64 =
        db.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).unwrap();
    assert_eq!(broken, 0, "the planted rows do not fit together");
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    planted
}

impl Writer<'_> {
    fn insert(&self, table: &str, columns: &str, values: impl Params) {
        let places = vec!["?"; columns.split(',').count()].join(", ");
        let statement = format!("INSERT INTO {table} ({columns}) VALUES ({places})");
        let inserted = self.tx.prepare_cached(&statement).and_then(|mut insert| insert.execute(values));
        inserted.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }

    /// A blob with a file.
    fn document(&self, media_type: &str, value: &Value) -> (String, u64) {
        let bytes = value.to_string().into_bytes();
        let digest = digest(&bytes);
        fs::write(self.root.join("blobs/sha256").join(hex_of(&digest)), &bytes).unwrap();
        self.blob(&digest, bytes.len() as u64, media_type, None);
        (digest, bytes.len() as u64)
    }

    fn blob(&self, digest: &str, size: u64, media_type: &str, diff_id: Option<&str>) {
        let allocated = size.next_multiple_of(BLOCK);
        self.insert(
            "blob",
            "digest, size, media_type, diff_id, created_at, allocated",
            (digest, size, media_type, diff_id, 1_767_225_600, allocated),
        );
    }

    fn edge(&self, parent: &str, child: &str, kind: &str, position: usize) {
        self.insert("edge", "parent, child, kind, position", (parent, child, kind, position));
    }

    fn layer(&mut self, index: usize, layer: &Layer) {
        let diff_id = digest(format!("layer {index}").as_bytes());
        let blob = digest(format!("compressed layer {index}").as_bytes());
        let blob_size = layer.bytes * 2 / 5 + 200;
        self.blob(&blob, blob_size, LAYER, Some(&diff_id));
        // As long as it should be; nobody reads it.
        let file = fs::File::create(self.root.join("blobs/sha256").join(hex_of(&blob))).unwrap();
        file.set_len(blob_size).unwrap();
        let tree = self.tree(Some(&diff_id), layer.bytes);
        let parent = layer.parent.map(|parent| self.layers[parent].chain.clone());
        // The OCI image specification's chain ID.
        let chain = match &parent {
            Some(parent) => digest(format!("{parent} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        };
        self.snapshot(&chain, "committed", parent.as_deref(), &tree);
        self.layers.push(Written { diff_id, blob, blob_size, chain });
    }

    /// A tree with its directory.
    fn tree(&mut self, diff_id: Option<&str>, bytes: u64) -> String {
        let id = tree_id(self.trees);
        self.trees += 1;
        let diff = self.root.join("overlay2").join(&id).join("diff");
        make_dirs(&diff);
        // As the store marks it: nothing was added since.
        let tree = fs::File::open(self.root.join("overlay2").join(&id)).unwrap();
        tree.set_modified(std::time::UNIX_EPOCH).unwrap();
        self.insert(
            "tree",
            "id, diff_id, bytes, allocated, inodes, boot_id, mount_id, synced, created_at, whiteouts, counted",
            (
                &id,
                diff_id,
                bytes,
                bytes.next_multiple_of(BLOCK) + 2 * BLOCK,
                bytes / 20_000 + 1,
                "planted",
                0,
                1,
                1_767_225_600,
                0,
                diff_id.is_some(),
            ),
        );
        id
    }

    fn snapshot(&self, key: &str, kind: &str, parent: Option<&str>, tree: &str) {
        self.insert(
            "snapshot",
            "owner, key, kind, parent, tree, created_at, updated_at",
            ("local", key, kind, parent, tree, 1_767_225_600, 1_767_225_600),
        );
    }

    /// The digests of its manifest and its config.
    fn image(&self, number: usize, image: &Image, stack: &[usize]) -> (String, String) {
        let layers: Vec<&Written> = stack.iter().map(|layer| &self.layers[*layer]).collect();
        let labels = json!({
            "maintainer": format!("Team {} <team@example.com>", number % 37),
            "org.opencontainers.image.source": format!("https://git.example.com/team/app{}", number / 5),
            "org.opencontainers.image.version": format!("1.{}", number % 5),
        });
        let architecture = architecture();
        let (config, config_size) = self.document(
            CONFIG,
            &json!({
                "architecture": architecture,
                "os": "linux",
                "config": { "Cmd": ["/bin/app", number.to_string()], "Labels": labels },
                "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>() },
            }),
        );
        let descriptor = |media_type: &str, digest: &str, size: u64| json!({ "mediaType": media_type, "digest": digest, "size": size });
        let (manifest, manifest_size) = self.document(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor(CONFIG, &config, config_size),
                "layers": layers.iter().map(|layer| descriptor(LAYER, &layer.blob, layer.blob_size)).collect::<Vec<_>>(),
            }),
        );
        self.edge(&manifest, &config, "config", 0);
        let platform = format!("linux/{architecture}");
        let chain = layers.last().map(|layer| &layer.chain);
        self.insert(
            "image",
            "manifest, config, platform, created, labels, chain_id, last_used_at",
            (&manifest, &config, platform, image.created, labels.to_string(), chain, image.used_at),
        );
        for (position, layer) in layers.iter().enumerate() {
            self.edge(&manifest, &layer.blob, "layer", position + 1);
            self.insert(
                "image_layer",
                "manifest, position, blob, diff_id",
                (&manifest, position, &layer.blob, &layer.diff_id),
            );
        }
        let target = if image.index {
            let manifests = [descriptor(MANIFEST, &manifest, manifest_size)];
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
            let (index, _) = self.document(INDEX, &index);
            self.edge(&index, &manifest, "manifest", 0);
            index
        } else {
            manifest.clone()
        };
        let dangling = image.dangling.then_some(&target);
        for name in image.names.iter().chain(dangling) {
            let at = image.created + 86_400;
            self.insert(
                "reference",
                "owner, name, target, created_at, updated_at, pulled_at, pinned",
                ("local", name, &target, at, at, image.index.then_some(at), image.pinned),
            );
        }
        (manifest, config)
    }

    fn container(&mut self, number: usize, image: &Image, manifest: &str, chain: &str) {
        let id = hex_of(&digest(format!("container {number}").as_bytes())).to_owned();
        let tree = self.tree(None, 0);
        self.snapshot(&id, "active", Some(chain), &tree);
        self.insert(
            "container",
            "id, owner, name, manifest, image, labels, created_at",
            (&id, "local", format!("container{number}"), manifest, &image.names[0], "{}", 1_767_225_600),
        );
    }
}

/// As the store makes them, and always other ones: the factor has no divisor in common with the number of IDs.
fn tree_id(number: u64) -> String {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut bits = number.wrapping_mul(1_000_000_000_039) % 36_u64.pow(8);
    (0..8)
        .map(|_| {
            let digit = usize::try_from(bits % 36).unwrap();
            bits /= 36;
            char::from(ALPHABET[digit])
        })
        .collect()
}

fn make_dirs(path: &PathBuf) {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).unwrap();
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
