//! The same for what takes images that nobody uses, and halves of their layers.

use std::fs;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::registry::Registry;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;

use super::{Case, KEPT, Template, image};
use crate::remote::{pull, remote, setting};

/// How often each command is killed. They are the same steps as those of `gc` and `rmi`, in other numbers.
const POINTS: u32 = 10;

#[test]
fn privileged_a_killed_prune() {
    let Some(template) = Template::new() else { return };
    Case::new(&["image", "prune", "-a", "-f"], POINTS).kill_at_all_points(&template);
}

const OLDEST_FIRST: [&str; 6] = ["f", "b", "e", "a", "d", "c"];

fn name(image: &str) -> String {
    format!("localhost/{image}:1")
}

/// Images of about half a megabyte each that nobody uses, and when they were used last.
fn with_unused() -> Option<Template> {
    let template = Template::kept(Sandbox::new()?);
    for (age, unused) in OLDEST_FIRST.into_iter().enumerate() {
        let layer =
            (0..25).fold(LayerBuilder::gzip(), |b, f| b.file(format!("{unused}-{f}"), vec![b'x'; 20_000]));
        let image = Image::new([layer.finish()]);
        template.store.load_bytes(&Layout::of(&name(unused), &image).archive());
        // What is found out when it is looked at for the first time is known.
        template.store.ok(["cat", &name(unused), &format!("/{unused}-0")]);
        let set = "UPDATE image SET last_used_at =";
        let of = format!("(SELECT target FROM reference WHERE name = '{}')", name(unused));
        // Earlier than the names: these count as well.
        template.store.execute(&format!("{set} {age} + 100 WHERE manifest = {of}"));
        template.store.execute(&format!(
            "UPDATE reference SET updated_at = {age} + 100, created_at = {age} + 100 WHERE name = '{}'",
            name(unused)
        ));
    }
    Some(template)
}

fn unused(store: &Sandbox) -> Vec<&'static str> {
    let there = store.sql("SELECT name FROM reference");
    OLDEST_FIRST.into_iter().filter(|image| there.contains(&name(image))).collect()
}

/// What was freed before the kill does not count the second time, so the same again would take more. A collection
/// finishes what was begun, and no more: those that are left were used last, and are as many as should be at least.
#[test]
fn privileged_a_killed_gc_that_is_to_free_so_much() {
    let Some(template) = with_unused() else { return };
    let left = |store: &Sandbox| {
        store.ok(["gc"]);
        let left = unused(store);
        assert!(left.len() >= 3 && OLDEST_FIRST.ends_with(&left), "{left:?} are left");
        for image in &left {
            assert_eq!(store.ok(["cat", &name(image), &format!("/{image}-24")]).len(), 20_000);
        }
        left
    };
    let again = |store: &Sandbox| {
        for image in left(store).iter().rev().skip(3) {
            store.ok(["rmi", &name(image)]);
        }
    };
    let args = ["gc", "--all", "--free", "1400KB"];
    let check = |store: &Sandbox| assert_eq!(left(store).len(), 3, "1.4 of three times half a megabyte");
    Case { again: Some(&again), check: &check, ..Case::new(&args, POINTS) }.kill_at_all_points(&template);
}

/// An image of a registry that nobody uses, and what its files are.
struct Pulled {
    template: Template,
    _registry: Registry,
    name: String,
    files: Snapshot,
}

impl Pulled {
    fn new() -> Option<Self> {
        let (store, registry) = setting()?;
        let template = Template::kept(store);
        registry.push("many:1", &image("many", 20));
        let name = registry.reference("many:1");
        let store = &template.store;
        pull(store, &[&name]).success();
        let place = store.mount(&name);
        let files = Snapshot::of(&place);
        store.umount(&place);
        Some(Self { template, _registry: registry, name, files })
    }

    fn kill(&self, half: &str, left: &str) {
        let check = |store: &Sandbox| {
            assert_eq!(store.sql(left), ["20"], "layers of one image of which {half} are gone");
            let out = store.dir().join("out.tar");
            remote(store, &["save"], &["-o", out.to_str().unwrap(), &self.name]).success();
            assert!(fs::metadata(out).unwrap().len() > 20 * 512);
            for image in [&self.name, KEPT] {
                let place = store.mount(image);
                let files = if image == KEPT { &self.template.kept } else { &self.files };
                files.assert_same(&Snapshot::of(&place));
                store.umount(&place);
            }
        };
        let args = ["gc", "--evict", half];
        Case { check: &check, ..Case::new(&args, POINTS) }.kill_at_all_points(&self.template);
    }
}

#[test]
fn privileged_a_killed_eviction_of_trees() {
    let Some(pulled) = Pulled::new() else { return };
    pulled.kill("trees", "SELECT count(*) FROM image_layer WHERE diff_id NOT IN (SELECT diff_id FROM tree WHERE diff_id IS NOT NULL)");
}

#[test]
fn privileged_a_killed_eviction_of_blobs() {
    let Some(pulled) = Pulled::new() else { return };
    pulled.kill("blobs", "SELECT count(*) FROM image_layer WHERE blob NOT IN (SELECT digest FROM blob)");
}
