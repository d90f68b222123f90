//! The database's schema and its migrations.
//!
//! `user_version` counts the migrations applied; they are only ever appended. A change that older
//! programs must not ignore adds a row to `feature`, and a program refuses a store with a feature
//! that it does not know.
//!
//! ```text
//! blob        every complete blob; the bytes are at blobs/<algorithm>/<hex>
//! edge        which blob names which other (index -> manifest -> config, layers)
//! image       what a manifest with a config says, so that listing needs no JSON
//! image_layer the layers of an image, lowest first
//! reference   owner and name -> manifest or index
//! tree        every unpacked layer (diff_id) or writable upper (no diff_id)
//! snapshot    stacks of trees; image chains are keyed by chain ID
//! lease       live sessions, and what they keep from collection
//! container   snapshots that people made from images, under a name
//! mount       where the store mounted what
//! mount_tree  the trees of each mount
//! ```
//!
//! Digests are text, so that `sqlite3` shows an administrator the same names as the disk does.
//! Times are seconds since 1970.

/// `PRAGMA application_id`: the letters "Lyst".
pub(crate) const APPLICATION_ID: i32 = 0x4c79_7374;

/// Features that this program can read and write.
pub(crate) const KNOWN_FEATURES: &[&str] = &[];

/// One script a format version.
pub(crate) const MIGRATIONS: &[&str] = &[V1, V2, V3, V4];

/// The first format.
const V1: &str = "
CREATE TABLE feature (
    name TEXT PRIMARY KEY
) STRICT;

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
INSERT INTO meta VALUES ('lock_salt', lower(hex(randomblob(16))));

CREATE TABLE blob (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    media_type TEXT,
    -- computed here from the uncompressed stream, never taken from a config
    diff_id TEXT,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_diff_id ON blob (diff_id) WHERE diff_id IS NOT NULL;

CREATE TABLE edge (
    parent TEXT NOT NULL REFERENCES blob (digest) ON DELETE CASCADE,
    -- not a foreign key: an index names manifests of platforms that were never fetched
    child TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('manifest', 'config', 'layer', 'subject')),
    -- the order in which the parent names its children
    position INTEGER NOT NULL,
    PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;
CREATE INDEX edge_child ON edge (child);

CREATE TABLE image (
    manifest TEXT PRIMARY KEY REFERENCES blob (digest) ON DELETE CASCADE,
    config TEXT NOT NULL,
    platform TEXT NOT NULL,
    created INTEGER,
    labels TEXT NOT NULL,
    -- NULL for an image without layers
    chain_id TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX image_config ON image (config);

CREATE TABLE image_layer (
    manifest TEXT NOT NULL REFERENCES image (manifest) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    blob TEXT NOT NULL,
    diff_id TEXT NOT NULL,
    PRIMARY KEY (manifest, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layer_diff ON image_layer (diff_id);

CREATE TABLE reference (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    target TEXT NOT NULL REFERENCES blob (digest),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    pulled_at INTEGER,
    last_used_at INTEGER,
    PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_target ON reference (target);

CREATE TABLE tree (
    id TEXT PRIMARY KEY,
    diff_id TEXT UNIQUE,
    bytes INTEGER NOT NULL,
    allocated INTEGER NOT NULL,
    inodes INTEGER NOT NULL,
    -- directories that the layer implies but does not list, separated by NUL
    implied BLOB,
    -- where the files were written: they are trusted while both still hold, or once synced
    boot_id TEXT NOT NULL,
    mount_id INTEGER NOT NULL,
    synced INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshot (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('active', 'view', 'committed')),
    parent TEXT,
    tree TEXT REFERENCES tree (id) ON UPDATE CASCADE,
    -- a tree of this stack alone, on top of those of its layers
    fixup TEXT REFERENCES tree (id),
    labels TEXT NOT NULL DEFAULT '{}',
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (owner, key),
    FOREIGN KEY (owner, parent) REFERENCES snapshot (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshot_parent ON snapshot (owner, parent);
CREATE INDEX snapshot_tree ON snapshot (tree);
CREATE INDEX snapshot_fixup ON snapshot (fixup);

CREATE TABLE lease (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    pid INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- NULL: as long as the session that holds it lives
    expires_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE lease_item (
    lease TEXT NOT NULL REFERENCES lease (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('blob', 'tree')),
    key TEXT NOT NULL,
    PRIMARY KEY (lease, kind, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE mount (
    target BLOB NOT NULL,
    -- inode of /proc/self/ns/mnt: elsewhere the target says nothing
    namespace INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    -- tells it from what others mount there; NULL until it is mounted
    mount_id INTEGER,
    -- the store made the directory and removes it again
    own_directory INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (target, namespace)
) STRICT, WITHOUT ROWID;

-- they may be replaced by others, or lose their image, while mounted
CREATE TABLE mount_tree (
    target BLOB NOT NULL,
    namespace INTEGER NOT NULL,
    tree TEXT NOT NULL,
    PRIMARY KEY (target, namespace, tree),
    FOREIGN KEY (target, namespace) REFERENCES mount (target, namespace) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
";

/// Hard links of a layer to files of the layers below.
const V2: &str = "
-- path and target of each, all separated by NUL; NULL where the layer has none
ALTER TABLE tree ADD COLUMN links BLOB;
";

/// Containers, and snapshots of others than images.
const V3: &str = "
-- whiteouts and opaque directories in the tree; NULL where nobody has counted
ALTER TABLE tree ADD COLUMN whiteouts INTEGER;
-- whether bytes, allocated and inodes are known: what a container writes is counted when it is asked for
ALTER TABLE tree ADD COLUMN counted INTEGER NOT NULL DEFAULT 1;

-- of an image's stack: whether it is known if it needs a fix-up
ALTER TABLE snapshot ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
-- how it is mounted, as JSON
ALTER TABLE snapshot ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
-- whether it was ever mounted, or somebody was told how
ALTER TABLE snapshot ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
-- the project whose quota its files count for; the last number that was given is in meta
ALTER TABLE snapshot ADD COLUMN project INTEGER;
-- the boot in which it was last mounted without syncing anything
ALTER TABLE snapshot ADD COLUMN volatile_boot TEXT;
CREATE INDEX snapshot_key ON snapshot (key);
CREATE UNIQUE INDEX snapshot_project ON snapshot (project) WHERE project IS NOT NULL;

-- with row IDs: they tell which of several that were made in the same second came first
CREATE TABLE container (
    -- key of its snapshot
    id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    manifest TEXT NOT NULL REFERENCES blob (digest),
    -- the image as it was asked for
    image TEXT NOT NULL,
    labels TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    FOREIGN KEY (owner, id) REFERENCES snapshot (owner, key)
) STRICT;
CREATE INDEX container_manifest ON container (manifest);

-- the same as before, but what is mounted is an image or a snapshot
CREATE TABLE new_mount (
    target BLOB NOT NULL,
    namespace INTEGER NOT NULL,
    manifest TEXT,
    owner TEXT,
    key TEXT,
    boot_id TEXT NOT NULL,
    mount_id INTEGER,
    own_directory INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (target, namespace),
    CHECK ((manifest IS NULL) <> (key IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO new_mount (target, namespace, manifest, boot_id, mount_id, own_directory, created_at)
    SELECT target, namespace, manifest, boot_id, mount_id, own_directory, created_at FROM mount;
DROP TABLE mount;
ALTER TABLE new_mount RENAME TO mount;
CREATE INDEX mount_snapshot ON mount (owner, key) WHERE key IS NOT NULL;
";

/// What collection needs to be exact, and to find quickly what keeps an object.
const V4: &str = "
-- bytes of the blocks of its file; NULL where nobody has counted
ALTER TABLE blob ADD COLUMN allocated INTEGER;
-- when it was mounted, pulled, or something was made from it
ALTER TABLE image ADD COLUMN last_used_at INTEGER;
-- whether no policy may take the name away
ALTER TABLE reference ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
CREATE INDEX lease_item_key ON lease_item (kind, key);
CREATE INDEX mount_tree_tree ON mount_tree (tree);
CREATE INDEX image_chain ON image (chain_id) WHERE chain_id IS NOT NULL;
CREATE INDEX tree_unsynced ON tree (diff_id) WHERE synced = 0;
CREATE INDEX mount_manifest ON mount (manifest) WHERE manifest IS NOT NULL;
-- of all owners
CREATE INDEX snapshot_above ON snapshot (parent) WHERE parent IS NOT NULL;
";
