//! Power cuts: what the disk holds at any moment is a store that has kept its word.
//!
//! The store is on an ext4 that is a file on an XFS. A copy of that file, taken in one step, is what a disk
//! holds whose power fails at that moment: the file system's journal has to be replayed, and file contents
//! that were never synced are missing or empty. The copy is mounted and looked at. What this cannot show is
//! a disk that lies about its own write cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use layerstore_testkit::disk::{Disk, cut_power, format_ext4};
use layerstore_testkit::docker::Archive;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Layer, LayerBuilder};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;

/// One command and the names that there are when it has returned.
struct Step {
    args: Vec<String>,
    names: &'static [&'static str],
}

fn step(args: &[&str], names: &'static [&'static str]) -> Step {
    Step { args: args.iter().map(|arg| (*arg).to_owned()).collect(), names }
}

/// The disk as it was at one moment.
struct Cut {
    image: PathBuf,
    /// Steps that had returned: acknowledged.
    returned: usize,
    /// Steps that had begun.
    begun: usize,
}

struct Machine {
    steps: Vec<Step>,
    /// Archives by the name of the image in them.
    archives: BTreeMap<&'static str, PathBuf>,
    /// What every image looks like.
    expected: BTreeMap<&'static str, Snapshot>,
    megabytes: u64,
    // Mounted last, so it goes first.
    host: Disk,
}

impl Machine {
    fn new(
        archives: BTreeMap<&'static str, PathBuf>,
        aliases: &[(&'static str, &'static str)],
        megabytes: u64,
        steps: Vec<Step>,
    ) -> Self {
        let store = Sandbox::new().unwrap();
        let mut expected = BTreeMap::new();
        for (name, archive) in &archives {
            store.load(archive);
            expected.insert(*name, Snapshot::of(store.mount(name)).without_root_mtime());
        }
        for (alias, name) in aliases {
            expected.insert(alias, expected[name].clone());
        }
        Self { steps, archives, expected, megabytes, host: Disk::xfs(megabytes * 3) }
    }

    /// Runs all steps on a new disk. Calls `at` with the disk, the number of a step, and what tells whether it
    /// runs, when one has begun and when it has returned.
    fn run(&self, mut at: impl FnMut(&Path, usize, &mut dyn FnMut() -> bool)) -> Vec<Duration> {
        let image = self.host.path().join("disk");
        format_ext4(&image, self.megabytes);
        let disk = Disk::of_image(&image);
        let store = Sandbox::at(&disk.path().join("store")).unwrap();
        let mut times = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            let start = Instant::now();
            let mut command = store.command(&step.args);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            at(&image, number, &mut || child.try_wait().unwrap().is_none());
            assert!(child.wait().unwrap().success(), "{:?}", step.args);
            times.push(start.elapsed());
            at(&image, number, &mut || false);
        }
        times
    }

    /// Cuts the power `within` times in each step and once right after it has returned.
    fn cut(&self, within: u32) -> Vec<Cut> {
        let times = self.run(|_, _, _| {});
        fs::remove_file(self.host.path().join("disk")).unwrap();
        let mut cuts: Vec<Cut> = Vec::new();
        self.run(|disk, number, is_running| {
            let mut cut = |returned| {
                let image = self.host.path().join(format!("cut-{}", cuts.len()));
                cut_power(disk, &image);
                cuts.push(Cut { image, returned, begun: number + 1 });
            };
            let start = Instant::now();
            for n in 0..within {
                // Each step is cut at other fractions of its time.
                let percent = (n * 100 + u32::try_from(number * 62 % 100).unwrap()) / within;
                let time = times[number] * percent / 100;
                if is_running() {
                    std::thread::sleep(time.saturating_sub(start.elapsed()));
                }
                if is_running() {
                    cut(number);
                }
            }
            if !is_running() {
                cut(number + 1);
            }
        });
        cuts
    }

    fn check(&self, cut: &Cut) {
        let context = format!("cut after {} of {} begun steps", cut.returned, cut.begun);
        let disk = Disk::of_image(&cut.image);
        let store = Sandbox::at(&disk.path().join("store")).unwrap();

        let listed = listed(&store);
        let names_after = |steps: usize| -> BTreeSet<String> {
            let names = steps.checked_sub(1).map_or(&[][..], |last| self.steps[last].names);
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let possible = [names_after(cut.returned), names_after(cut.begun)];
        assert!(possible.contains(&listed), "{context}: {listed:?} is neither of {possible:?}");
        assert_sound(&store);

        let synced: BTreeSet<_> = store.sql("SELECT id FROM tree WHERE synced").into_iter().collect();
        for name in &listed {
            self.compare(&store, name);
        }
        let trees: BTreeSet<_> = store.sql("SELECT id FROM tree").into_iter().collect();
        assert!(synced.is_subset(&trees), "{context}: a tree that was synced was not trusted");

        for (name, archive) in &self.archives {
            store.load(archive);
            if !listed.contains(*name) {
                self.compare(&store, name);
            }
        }
        store.ok(["gc"]);
        store.assert_no_leftovers();
        assert_sound(&store);
        drop((store, disk));
        fs::remove_file(&cut.image).unwrap();
    }

    fn compare(&self, store: &Sandbox, name: &str) {
        let root = store.mount(name);
        self.expected[name].assert_same(&Snapshot::of(&root).without_root_mtime());
        store.umount(&root);
    }
}

fn listed(store: &Sandbox) -> BTreeSet<String> {
    store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().map(str::to_owned).collect()
}

fn assert_sound(store: &Sandbox) {
    assert_eq!(store.sql("PRAGMA integrity_check"), ["ok"]);
    assert!(store.sql("SELECT \"table\" FROM pragma_foreign_key_check").is_empty());
}

fn files(name: &str, files: usize) -> LayerBuilder {
    let text = |f: usize| format!("{name} {f} ").repeat(f * 53 % 4000);
    (0..files).fold(LayerBuilder::gzip().dir(name), |b, f| b.file(format!("{name}/{f}"), text(f)))
}

fn layer(name: &str, count: usize) -> Layer {
    files(name, count).finish()
}

/// Its hard links make the image need a fix-up, which holds copies of files.
fn top(name: &str) -> Layer {
    (10..30).fold(files(name, 9), |b, f| b.hard_link(format!("{name}/l{f}"), format!("base/{f}"))).finish()
}

/// Two cuts a step, or some hundred cuts with `LAYERSTORE_LONG=1`.
#[test]
fn privileged_nothing_acknowledged_is_lost() {
    if !require::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let base = layer("base", 100);
    let image = |name: &str| Image::new([base.clone(), layer(name, 120), top(&format!("{name}-top"))]);
    let [a, b, c] = ["a", "b", "c"].map(image);
    let file = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let archives = BTreeMap::from([
        ("localhost/a:1", file("a.tar", Layout::of("localhost/a:1", &a).archive())),
        ("localhost/b:1", file("b.tar", Layout::of("localhost/b:1", &b).archive())),
        ("localhost/c:1", file("c.tar", Archive::new().image(&["localhost/c:1"], &c).legacy())),
    ]);
    let load = |name: &str| ["load".to_owned(), "-i".to_owned(), archives[name].to_str().unwrap().to_owned()];
    let load = |name: &str, names| Step { args: load(name).to_vec(), names };
    let steps = vec![
        load("localhost/a:1", &["localhost/a:1"]),
        load("localhost/b:1", &["localhost/a:1", "localhost/b:1"]),
        // Makes the fix-up.
        step(&["ls", "localhost/a:1"], &["localhost/a:1", "localhost/b:1"]),
        // Makes all trees durable.
        step(&["gc"], &["localhost/a:1", "localhost/b:1"]),
        step(&["rmi", "localhost/a:1"], &["localhost/b:1"]),
        load("localhost/c:1", &["localhost/b:1", "localhost/c:1"]),
        step(
            &["tag", "localhost/b:1", "localhost/alias:1"],
            &["localhost/alias:1", "localhost/b:1", "localhost/c:1"],
        ),
        step(&["rmi", "localhost/b:1"], &["localhost/alias:1", "localhost/c:1"]),
        load("localhost/a:1", &["localhost/a:1", "localhost/alias:1", "localhost/c:1"]),
        step(&["rmi", "localhost/alias:1"], &["localhost/a:1", "localhost/c:1"]),
    ];
    let aliases = [("localhost/alias:1", "localhost/b:1")];
    let machine = Machine::new(archives.clone(), &aliases, 256, steps);
    for _ in 0..if require::is_long() { 5 } else { 1 } {
        let cuts = machine.cut(if require::is_long() { 8 } else { 1 });
        assert!(cuts.len() >= machine.steps.len(), "one after each step");
        for cut in &cuts {
            machine.check(cut);
        }
    }
}

/// Real images; only with `LAYERSTORE_LONG=1`.
#[test]
fn privileged_no_real_image_is_lost() {
    let (true, true, Some(images)) = (require::long(), require::root(), require::images()) else { return };
    let [app, node] = ["app.oci.tar", "node.oci.tar"].map(|name| images.join(name));
    let steps = vec![
        step(&["load", "-i", app.to_str().unwrap()], &["localhost/app:1"]),
        step(&["load", "-i", node.to_str().unwrap()], &["localhost/app:1", "localhost/node:1"]),
        step(&["gc"], &["localhost/app:1", "localhost/node:1"]),
        step(&["rmi", "localhost/app:1"], &["localhost/node:1"]),
    ];
    let archives = BTreeMap::from([("localhost/app:1", app), ("localhost/node:1", node)]);
    let machine = Machine::new(archives, &[], 4000, steps);
    for cut in machine.cut(6) {
        machine.check(&cut);
    }
}
