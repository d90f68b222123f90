//! Each reason for which a row stays, by itself. The plan of a collection does not even ask for what these keep, so that it
//! takes one that is out of date, or wrong, to need them.

use layerstore_oci::ErrorKind;
use layerstore_store::{LOCAL, Object, Store, Unless, Untag, Victim};

use crate::open::execute;
use crate::{diff_id, digest, open, sql};

/// What happens, as SQL, and whether the row stays then.
type Case = (&'static str, String, bool);

const NAME: &str = "localhost/a:1";
const TABLES: [&str; 12] = [
    "blob",
    "edge",
    "image",
    "image_layer",
    "reference",
    "tree",
    "snapshot",
    "lease",
    "lease_item",
    "container",
    "mount",
    "mount_tree",
];
const STAYS: bool = true;
const GOES: bool = false;

/// A store of which there are rows alone.
struct Rows {
    dir: tempfile::TempDir,
    store: Store,
}

impl Rows {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        Self { dir, store }
    }

    /// Begins anew with what `statements` insert, in which words in capitals stand for digests. They need not make sense
    /// together.
    fn set(&self, statements: &str) {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let mut words = ["BLOB", "MANIFEST", "OTHER", "INDEX", "CHAIN"]
            .map(|word| (word, digest(word).to_string()))
            .to_vec();
        words.push(("DIFF", diff_id("DIFF").to_string()));
        words.push(("BOOT", boot.trim().to_owned()));
        words.push(("NAME", NAME.to_owned()));
        let mut all = "PRAGMA foreign_keys = OFF; BEGIN;".to_owned();
        for table in TABLES {
            all += &["DELETE FROM ", table, ";"].concat();
        }
        all += statements;
        for (word, value) in words {
            all = all.replace(&format!("'{word}'"), &format!("'{value}'"));
        }
        execute(self.dir.path(), &format!("{all}; COMMIT"));
    }
}

fn insert(table: &str, columns: &str, values: &str) -> String {
    format!("INSERT INTO {table} ({columns}) VALUES ({values});")
}

/// A blob that is no layer.
fn document(digest: &str) -> String {
    insert("blob", "digest, size, created_at", &format!("'{digest}', 1, 0"))
}

fn layer_blob() -> String {
    insert("blob", "digest, size, diff_id, created_at", "'BLOB', 1, 'DIFF', 0")
}

/// The tree of a layer, durable or not.
fn layer_tree(synced: u8) -> String {
    let columns = "id, diff_id, bytes, allocated, inodes, boot_id, mount_id, synced, created_at";
    insert("tree", columns, &format!("'aaaaaaaa', 'DIFF', 1, 1, 1, 'BOOT', 1, {synced}, 0"))
}

fn edge(parent: &str, child: &str, kind: &str) -> String {
    insert("edge", "parent, child, kind, position", &format!("'{parent}', '{child}', '{kind}', 0"))
}

fn name(owner: &str, target: &str, pulled_at: &str) -> String {
    let values = format!("'{owner}', 'NAME', '{target}', 1, 5, {pulled_at}");
    insert("reference", "owner, name, target, created_at, updated_at, pulled_at", &values)
}

fn snapshot(owner: &str, key: &str, more: &str, values: &str) -> String {
    let values = format!("'{owner}', '{key}', 0, 0, {values}");
    insert("snapshot", &format!("owner, key, created_at, updated_at, {more}"), &values)
}

fn image(config: &str) -> String {
    let values = format!("'MANIFEST', '{config}', 'linux/amd64', '{{}}', 'CHAIN', 7");
    insert("image", "manifest, config, platform, labels, chain_id, last_used_at", &values)
}

fn lease(kind: &str, key: &str) -> String {
    "INSERT INTO lease VALUES ('l', 'local', 1, 'b', 0, NULL);".to_owned()
        + &insert("lease_item", "lease, kind, key", &format!("'l', '{kind}', '{key}'"))
}

/// Of an image, or of the snapshot with this owner and key.
fn mount(subject: &str, boot: &str) -> String {
    let columns = "target, namespace, manifest, owner, key, boot_id, own_directory, created_at";
    insert("mount", columns, &format!("x'2f', 1, {subject}, '{boot}', 0, 0"))
}

fn container(manifest: &str) -> String {
    let columns = "id, owner, name, manifest, image, labels, created_at";
    insert("container", columns, &format!("'c', 'local', 'c', '{manifest}', 'a', '{{}}', 0"))
}

/// Asks to forget one object, to which each case gives a reason to stay or none.
#[track_caller]
fn check(object: &Object, evicted: bool, base: &str, cases: &[Case]) {
    let rows = Rows::new();
    let nothing = ("nothing happens", String::new(), GOES);
    for (case, statements, stays) in std::iter::once(&nothing).chain(cases) {
        rows.set(&format!("{base}{statements}"));
        let victim = Victim { object: object.clone(), evicted };
        let forgotten = rows.store.forget(&[], &[victim]).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(forgotten.victims.is_empty(), *stays, "{case}");
    }
}

#[test]
fn a_blob_stays_for_each_reason_alone() {
    let image_of_it = |boot| mount("'BLOB', NULL, NULL", boot);
    let cases = [
        ("another blob names it", document("OTHER") + &edge("OTHER", "BLOB", "subject"), STAYS),
        ("it has a name", name("anybody", "BLOB", "NULL"), STAYS),
        ("it is leased", lease("blob", "BLOB"), STAYS),
        ("a tree of that digest is leased", lease("tree", "BLOB"), GOES),
        ("it is mounted", image_of_it("BOOT"), STAYS),
        ("it was mounted when the machine went down", image_of_it("another"), GOES),
        ("a container is made from it", container("BLOB"), STAYS),
        ("its tree is not durable", layer_tree(0), STAYS),
        ("its tree is durable", layer_tree(1), GOES),
    ];
    check(&Object::Blob(digest("BLOB")), false, &layer_blob(), &cases);
}

#[test]
fn an_evicted_blob_stays_for_each_reason_alone() {
    let pulled = [
        layer_blob(),
        layer_tree(1),
        document("MANIFEST"),
        edge("MANIFEST", "BLOB", "layer"),
        name("anybody", "MANIFEST", "3"),
    ];
    let another = document("OTHER") + &edge("OTHER", "BLOB", "layer");
    let named = |target, pulled_at| name("local", target, pulled_at);
    let index = |kind| document("INDEX") + &edge("INDEX", "OTHER", kind) + &named("INDEX", "3");
    let image_of_it = |boot| mount("'BLOB', NULL, NULL", boot);
    let cases = [
        ("its tree is gone", "DELETE FROM tree".to_owned(), STAYS),
        ("its tree is not durable", "UPDATE tree SET synced = 0".to_owned(), STAYS),
        ("its image was never pulled", "UPDATE reference SET pulled_at = NULL".to_owned(), STAYS),
        ("another image has it that has no name", another.clone(), STAYS),
        ("another image has it that was not pulled", another.clone() + &named("OTHER", "NULL"), STAYS),
        ("another image has it that was pulled", another.clone() + &named("OTHER", "3"), GOES),
        ("another image has it that came with an index", another.clone() + &index("manifest"), GOES),
        ("another image has it that something pulled is about", another + &index("subject"), STAYS),
        (
            "it is also a config",
            document("OTHER") + &edge("OTHER", "BLOB", "config") + &named("OTHER", "3"),
            STAYS,
        ),
        ("it names another blob", edge("BLOB", "OTHER", "layer"), STAYS),
        ("it has a name", named("BLOB", "3"), STAYS),
        ("it is leased", lease("blob", "BLOB"), STAYS),
        ("it is mounted", image_of_it("BOOT"), STAYS),
        ("it was mounted when the machine went down", image_of_it("another"), GOES),
        ("a container is made from it", container("BLOB"), STAYS),
    ];
    check(&Object::Blob(digest("BLOB")), true, &pulled.concat(), &cases);
}

#[test]
fn a_tree_stays_for_each_reason_alone() {
    let mounted = |boot| {
        mount("'OTHER', NULL, NULL", boot)
            + &insert("mount_tree", "target, namespace, tree", "x'2f', 1, 'aaaaaaaa'")
    };
    let layer = insert("image_layer", "manifest, position, blob, diff_id", "'MANIFEST', 0, 'BLOB', 'DIFF'");
    let both = [
        ("a snapshot has it", snapshot("anybody", "s", "kind, tree", "'active', 'aaaaaaaa'"), STAYS),
        ("it is a fix-up", snapshot("anybody", "s", "kind, fixup", "'committed', 'aaaaaaaa'"), STAYS),
        ("it is leased", lease("tree", "DIFF"), STAYS),
        ("a blob of that digest is leased", lease("blob", "DIFF"), GOES),
        ("it is mounted", mounted("BOOT"), STAYS),
        ("it was mounted when the machine went down", mounted("another"), GOES),
    ];
    let tree = Object::Tree("aaaaaaaa".parse().unwrap());
    let plain = [("an image has the layer", layer.clone(), STAYS), ("its blob is here", layer_blob(), GOES)];
    check(&tree, false, &layer_tree(1), &[&both[..], &plain].concat());
    let evicted =
        [("an image has the layer", layer, GOES), ("its blob is gone", "DELETE FROM blob".to_owned(), STAYS)];
    check(&tree, true, &(layer_blob() + &layer_tree(1)), &[&both[..], &evicted].concat());
}

#[test]
fn a_snapshot_stays_for_each_reason_alone() {
    let above = |owner| snapshot(owner, "s", "kind, parent", "'view', 'CHAIN'");
    let base = layer_tree(1) + &snapshot("local", "CHAIN", "kind, tree", "'committed', 'aaaaaaaa'");
    let both = [
        ("it is a view", "UPDATE snapshot SET kind = 'view'".to_owned(), STAYS),
        ("another is above it", above("local"), STAYS),
        ("somebody else's is above theirs of that key", above("another"), GOES),
        ("it is mounted", mount("NULL, 'local', 'CHAIN'", "BOOT"), STAYS),
        ("somebody else's of that key is mounted", mount("NULL, 'another', 'CHAIN'", "BOOT"), GOES),
        ("it was mounted when the machine went down", mount("NULL, 'local', 'CHAIN'", "another"), GOES),
        ("somebody has written to it", "UPDATE tree SET diff_id = NULL".to_owned(), STAYS),
    ];
    let of = |owner: &str, key| Object::Snapshot { owner: owner.to_owned(), key };
    let chain = || digest("CHAIN").to_string();
    let plain = [("an image has the stack", image("OTHER"), STAYS)];
    check(&of(LOCAL, chain()), false, &base, &[&both[..], &plain].concat());
    let evicted = [("an image has the stack", image("OTHER"), GOES)];
    check(&of(LOCAL, chain()), true, &base, &[&both[..], &evicted].concat());
    // The stack of an image is the store's own.
    let theirs = base.replace("'local'", "'another'");
    check(&of("another", chain()), false, &theirs, &[("an image has the stack", image("OTHER"), GOES)]);
    for evicted in [false, true] {
        let rows = Rows::new();
        rows.set(&base.replace("'CHAIN'", "'mine'"));
        let victim = Victim { object: of(LOCAL, "mine".to_owned()), evicted };
        assert_eq!(
            rows.store.forget(&[], &[victim]).unwrap().victims,
            Vec::<usize>::new(),
            "it is no stack of an image"
        );
    }
}

/// A name with an image, and the same name of somebody else.
fn named() -> String {
    let names = name("local", "MANIFEST", "3") + &name("another", "MANIFEST", "3");
    document("MANIFEST") + &document("OTHER") + &image("OTHER") + &names
}

fn untag(unless: Unless) -> Untag {
    Untag { owner: LOCAL.to_owned(), name: NAME.to_owned(), target: digest("MANIFEST"), unless }
}

#[test]
fn a_name_stays_for_each_reason_alone() {
    let above = |tree| {
        layer_tree(1)
            + &snapshot("anybody", "s", "kind, parent, tree", &format!("'committed', 'CHAIN', {tree}"))
    };
    let image_of_it = |boot| mount("'MANIFEST', NULL, NULL", boot);
    let any = "UPDATE reference SET";
    let cases = [
        ("nothing happens", String::new(), GOES),
        ("its image was used since", "UPDATE image SET last_used_at = 8".to_owned(), STAYS),
        ("a container is made from it", container("MANIFEST"), STAYS),
        ("its image is leased", lease("blob", "MANIFEST"), STAYS),
        ("its image is mounted", image_of_it("BOOT"), STAYS),
        ("its image was mounted when the machine went down", image_of_it("another"), GOES),
        ("a view is above its image", above("NULL"), STAYS),
        ("an image is above its image", above("'aaaaaaaa'"), GOES),
        (
            "somebody has written above its image",
            above("'aaaaaaaa'") + "; UPDATE tree SET diff_id = NULL",
            STAYS,
        ),
        ("it was pinned", format!("{any} pinned = 1"), STAYS),
        ("it was given again", format!("{any} updated_at = 6"), STAYS),
        ("it was pulled again", format!("{any} pulled_at = 4"), STAYS),
        ("it stands for something else", format!("{any} target = 'OTHER'"), STAYS),
    ];
    let images = vec![(digest("MANIFEST"), Some(7))];
    let unless = Unless::Used { images, updated_at: 5, pulled_at: Some(3) };
    let rows = Rows::new();
    for (case, statements, stays) in cases {
        rows.set(&format!("{}{statements}", named()));
        let forgotten = rows.store.forget(&[untag(unless.clone())], &[]).unwrap();
        assert_eq!(forgotten.names.is_empty(), stays, "{case}");
        let left = sql(rows.dir.path(), "SELECT owner FROM reference").len();
        assert_eq!(left, 1 + usize::from(stays), "{case}, and that of somebody else");
    }
}

#[test]
fn a_name_that_a_person_removes_stays_for_each_reason_alone() {
    let image_of_it = |boot| mount("'MANIFEST', NULL, NULL", boot);
    let moved = || "UPDATE reference SET target = 'OTHER'".to_owned();
    let pinned = || "UPDATE reference SET pinned = 1".to_owned();
    let (in_use, missing) = (Some(ErrorKind::InUse), Some(ErrorKind::NotFound));
    let claimed = || Unless::Claimed(vec![digest("MANIFEST")]);
    let cases = [
        ("nothing happens", String::new(), claimed(), None),
        ("a container is made from it", container("MANIFEST"), claimed(), in_use),
        ("its image is mounted", image_of_it("BOOT"), claimed(), in_use),
        ("its image was mounted when the machine went down", image_of_it("another"), claimed(), None),
        ("it was pinned", pinned(), claimed(), in_use),
        ("it stands for something else", moved(), claimed(), missing),
        ("it stands for something else, by force", moved(), Unless::Never, missing),
        ("it was pinned and is removed by force", pinned(), Unless::Never, None),
    ];
    let rows = Rows::new();
    for (case, statements, unless, refused) in cases {
        rows.set(&format!("{}{statements}", named()));
        let forgotten = rows.store.forget(&[untag(unless)], &[]);
        assert_eq!(forgotten.err().map(|error| error.kind()), refused, "{case}");
        let left = sql(rows.dir.path(), "SELECT owner FROM reference").len();
        assert_eq!(left, 1 + usize::from(refused.is_some()), "{case}, and that of somebody else");
    }
}

#[test]
fn names_lead_to_a_layer_through_manifests_and_indexes_alone() {
    let rows = Rows::new();
    let name = |name, target, pulled_at| {
        let values = format!("'local', '{name}', '{target}', 1, 5, {pulled_at}");
        insert("reference", "owner, name, target, created_at, updated_at, pulled_at", &values)
    };
    let statements = [
        layer_blob(),
        ["MANIFEST", "INDEX", "OTHER"].map(document).concat(),
        edge("MANIFEST", "BLOB", "layer"),
        edge("INDEX", "MANIFEST", "manifest"),
        name("by itself", "MANIFEST", "NULL"),
        name("in an index", "INDEX", "2"),
        // A signature of the image, say, whose config these bytes are.
        edge("OTHER", "MANIFEST", "subject"),
        edge("OTHER", "BLOB", "config"),
        name("about it", "OTHER", "3"),
    ];
    rows.set(&statements.concat());
    assert_eq!(rows.store.pulled_names_with(&digest("BLOB")).unwrap(), ["in an index"]);
    assert_eq!(rows.store.names_with(&digest("BLOB")).unwrap(), ["in an index", "by itself"]);
}

/// However many they are, and however long that takes.
#[test]
fn of_the_names_that_a_person_removes_all_go_or_none() {
    const MANY: usize = 20_000;
    let rows = Rows::new();
    let name = |number| format!("localhost/many:{number}");
    let insert_name = |number: usize| {
        let values = format!("'local', '{}', 'MANIFEST', 1, 5", name(number));
        insert("reference", "owner, name, target, created_at, updated_at", &values)
    };
    let many: String = (0..MANY).map(insert_name).collect();
    rows.set(&(document("MANIFEST") + &many));
    let untag = |number| Untag { name: name(number), ..untag(Unless::Claimed(Vec::new())) };
    let names: Vec<Untag> = (0..=MANY).map(untag).collect();
    assert_eq!(
        rows.store.forget(&names, &[]).unwrap_err().kind(),
        ErrorKind::NotFound,
        "the last is not there"
    );
    let left = || sql(rows.dir.path(), "SELECT name FROM reference").len();
    assert_eq!(left(), MANY);
    assert_eq!(rows.store.forget(&names[..MANY], &[]).unwrap().names.len(), MANY);
    assert_eq!(left(), 0);
}
