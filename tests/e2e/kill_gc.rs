//! `kill -9` at any moment of what frees space, and then the same again: it ends as if nothing had happened.

mod policies;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use layerstore_testkit::hex_of;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Entry, LayerBuilder};
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;

use crate::small_layer;

/// How often each command is killed.
const POINTS: u32 = 32;

const KEPT: &str = "localhost/kept:1";
const MANY: &str = "localhost/many:1";

/// A store with garbage of all kinds, of which each test works on copies.
struct Template {
    store: Sandbox,
    kept: Snapshot,
}

/// An image of `layers` layers of 15 files each, on the layer that all have.
fn image(name: &str, layers: usize) -> Image {
    let layer = |l: usize| {
        (0..15)
            .fold(LayerBuilder::gzip(), |b, f| b.file(format!("{name}-{l}-{f}"), "text ".repeat(f * 40)))
            .finish()
    };
    Image::new(std::iter::once(small_layer("base")).chain((0..layers).map(layer)))
}

impl Template {
    /// What stays: an image that a container is made from.
    fn kept(store: Sandbox) -> Self {
        // It has a fix-up: the link is to a file of the layer below.
        let top = LayerBuilder::gzip().entry(Entry::hard_link("link", "base")).file("top", "top");
        let image = Image::new([small_layer("base"), top.finish()]);
        store.load_bytes(&Layout::of(KEPT, &image).archive());
        let place = store.mount(KEPT);
        let kept = Snapshot::of(&place);
        store.umount(&place);
        store.ok(["create", "--name", "work", KEPT]);
        Self { store, kept }
    }

    fn new() -> Option<Self> {
        let template = Self::kept(Sandbox::new()?);
        let store = &template.store;
        let load = |name: &str, image: &Image| store.load_bytes(&Layout::of(name, image).archive());
        load(MANY, &image("many", 20));
        store.ok(["tag", MANY, "localhost/other:1"]);
        load("localhost/unreachable:1", &image("unreachable", 20));
        load("localhost/chain:1", &image("chain", 5));
        store.ok(["create", "--name", "gone", "localhost/chain:1"]);
        store.ok(["rm", "gone"]);
        template.plant();
        Some(template)
    }

    /// What no command leaves when it is allowed to finish.
    fn plant(&self) {
        let store = &self.store;
        let root = store.root();
        store.execute("DELETE FROM reference WHERE name = 'localhost/unreachable:1'");
        // Of this one there are only the stack and its trees.
        store.execute(
            "CREATE TEMP TABLE gone AS SELECT target AS digest FROM reference WHERE name = 'localhost/chain:1';
             INSERT INTO gone SELECT child FROM edge WHERE parent IN (SELECT digest FROM gone)
                 AND child NOT IN (SELECT child FROM edge WHERE parent NOT IN (SELECT digest FROM gone));
             DELETE FROM reference WHERE name = 'localhost/chain:1';
             DELETE FROM blob WHERE digest IN (SELECT digest FROM gone)",
        );
        self.kill_a_load();
        let file = |path: &str, size: usize| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x".repeat(size)).unwrap();
            path
        };
        for i in 0..40 {
            file(&format!("trash/junk-{}/deep/{i}", i % 4), 5000);
            file(&format!("overlay2/abcdefg{}/diff/{i}", i % 3), 3000);
        }
        file("trash/file", 10);
        for i in 0..20 {
            file(&format!("junk/{i}/file"), 4000);
        }
        file("core", 100_000);
        file(&format!("blobs/sha256/{}", "ab".repeat(32)), 9000);
        let partial = file(&format!("partial/sha256-{}", "cd".repeat(32)), 70_000);
        let status = Command::new("touch").args(["-d", "3 days ago"]).arg(partial).status();
        assert!(status.unwrap().success());
    }

    /// A load that gets half of its archive, and is killed while it waits for the rest.
    fn kill_a_load(&self) {
        let archive = Layout::of("localhost/half:1", &image("half", 10)).archive();
        let mut command = self.store.command(["load", "-q"]);
        let mut load = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut pipe = load.stdin.take().unwrap();
        pipe.write_all(&archive[..archive.len() * 2 / 3]).unwrap();
        let start = Instant::now();
        while self.store.names("ingest").is_empty() {
            assert!(start.elapsed() < Duration::from_mins(1), "the load does not begin");
            std::thread::yield_now();
        }
        load.kill().unwrap();
        load.wait().unwrap();
        assert_ne!(self.store.names("ingest").len(), 0);
    }

    /// The same store at another place of the same filesystem.
    fn copy(&self, name: &str) -> Sandbox {
        let root = self.store.dir().join(name);
        let status = Command::new("cp").arg("-a").args([self.store.root(), &root]).status().unwrap();
        assert!(status.success());
        Sandbox::at(&root).unwrap()
    }

    /// What must stay is there.
    #[track_caller]
    fn assert_kept(&self, store: &Sandbox) {
        let place = store.mount(KEPT);
        self.kept.assert_same(&Snapshot::of(&place));
        store.umount(&place);
        assert_eq!(store.ok(["cat", KEPT, "/link"]), "base");
        assert_eq!(store.ok(["diff", "work"]), "");
    }
}

/// What the database names is on disk, and the database is whole.
#[track_caller]
fn assert_nothing_half_done(store: &Sandbox) {
    assert_eq!(store.sql("PRAGMA integrity_check"), ["ok"]);
    assert_eq!(store.sql("SELECT count(*) FROM pragma_foreign_key_check"), ["0"]);
    let trees = store.names("overlay2");
    for id in store.sql("SELECT id FROM tree") {
        assert!(trees.contains(&id), "the database names a tree `{id}` that is not there");
    }
    let blobs = store.names("blobs/sha256");
    for digest in store.sql("SELECT digest FROM blob") {
        assert!(blobs.contains(hex_of(&digest)), "the database names a blob {digest} that is not there");
    }
    let lost = "SELECT blob FROM image_layer AS l WHERE blob NOT IN (SELECT digest FROM blob) AND NOT EXISTS \
                (SELECT 1 FROM tree AS t WHERE t.diff_id = l.diff_id AND t.synced)";
    assert_eq!(store.sql(lost), Vec::<String>::new(), "layers of which there is no form");
}

/// All that is there but for times: every path with its type and size, and every row.
fn everything(store: &Sandbox) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(store.root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if path.to_str().unwrap().starts_with("layerstore.db") {
                continue;
            }
            let meta = entry.metadata().unwrap();
            // The size of a directory is that of its busiest time.
            let size = if meta.is_dir() { 0 } else { meta.len() };
            found.insert(format!("{} {:o} {size}", path.display(), meta.mode()));
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    for table in store.sql("SELECT name FROM sqlite_schema WHERE type = 'table'") {
        let columns = store.sql(&format!(
            "SELECT group_concat('quote(' || name || ')', '||'' ''||') FROM pragma_table_info('{table}') \
             WHERE name NOT LIKE '%\\_at' ESCAPE '\\'"
        ));
        let rows = store.sql(&format!("SELECT {} FROM {table}", columns[0]));
        found.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    found
}

/// What is killed, and what must be so in the end.
struct Case<'a> {
    args: &'a [&'a str],
    /// How often it is killed.
    points: u32,
    /// What is done after it was killed, if it is not the same again.
    again: Option<&'a dyn Fn(&Sandbox)>,
    /// Looks at a store once more that has been compared.
    check: &'a dyn Fn(&Sandbox),
}

impl<'a> Case<'a> {
    fn new(args: &'a [&'a str], points: u32) -> Self {
        Self { args, points, again: None, check: &|_| {} }
    }

    /// Kills the command after each part of the time that it takes, does it again and collects. The end is always that of
    /// a command that nobody killed.
    fn kill_at_all_points(&self, template: &Template) {
        let Self { args, points, again, check } = *self;
        let mut times = Vec::new();
        let mut expected = BTreeSet::new();
        for round in 0..3 {
            let store = template.copy(&format!("whole-{round}"));
            let start = Instant::now();
            store.ok(args);
            times.push(start.elapsed());
            store.ok(["gc"]);
            template.assert_kept(&store);
            store.assert_no_leftovers();
            store.assert_nothing_to_collect();
            let found = everything(&store);
            assert!(round == 0 || found == expected, "{}", difference(&expected, &found));
            expected = found;
            check(&store);
            remove(store.root());
        }
        times.sort();
        let time = times[1];
        let mut killed = 0;
        for point in 0..points {
            let store = template.copy(&format!("killed-{point}"));
            let mut child = store.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(time * point / points);
            killed += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            assert_nothing_half_done(&store);
            assert_eq!(store.ok(["cat", KEPT, "/link"]), "base");
            match again {
                Some(again) => again(&store),
                None => drop(store.ok(args)),
            }
            store.ok(["gc"]);
            template.assert_kept(&store);
            let found = everything(&store);
            assert!(found == expected, "killed at point {point}: {}", difference(&expected, &found));
            check(&store);
            remove(store.root());
        }
        assert!(killed >= points / 3, "only {killed} of {points} were killed in time");
    }
}

fn difference(expected: &BTreeSet<String>, found: &BTreeSet<String>) -> String {
    let lines = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
        one.difference(other).cloned().collect::<Vec<_>>().join("\n")
    };
    format!("missing:\n{}\nleft:\n{}", lines(expected, found), lines(found, expected))
}

fn remove(root: &Path) {
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn privileged_a_killed_gc() {
    let Some(template) = Template::new() else { return };
    Case::new(&["gc"], POINTS).kill_at_all_points(&template);
}

#[test]
fn privileged_a_killed_rmi() {
    let Some(template) = Template::new() else { return };
    // With --force an image that has gone already is no failure.
    Case::new(&["rmi", "-f", "localhost/other:1", MANY], POINTS).kill_at_all_points(&template);
}
