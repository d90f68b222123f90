//! Faults between the program and a registry: whatever a network or a server does, an image is here whole or not at all,
//! and nothing is fetched twice that has arrived.

mod answers;
mod interrupted;
mod push;
mod secrets;
mod transfers;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use layerstore_testkit::fault_proxy::{FaultProxy, Match};
use layerstore_testkit::image::Image;
use layerstore_testkit::layer::{Layer, LayerBuilder};
use layerstore_testkit::registry::{Registry, RegistryOptions};
use layerstore_testkit::require;
use layerstore_testkit::rng::Rng;
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::traffic::Exchange;

/// Three attempts with hardly a wait between them. A machine that is busy is not taken for a stall.
const RETRY: &str = "attempts=3,wait=5ms,longest=20ms,stall=20s,rate=1024";
/// Two attempts, and an early end of what is slow.
const HASTY: &str = "attempts=2,wait=5ms,longest=20ms,stall=700ms,rate=1024";

/// Bytes of a file that no compression makes smaller.
const SIZE: usize = 200_000;

fn big_layer(seed: u64) -> Layer {
    LayerBuilder::gzip().file(format!("file{seed}"), Rng::new(seed).bytes(SIZE)).finish()
}

/// A registry with the image `a:1` of two large layers, a proxy before it, and an empty store.
struct Setup {
    registry: Registry,
    proxy: FaultProxy,
    store: Sandbox,
    image: Image,
}

impl Setup {
    #[track_caller]
    fn new() -> Option<Self> {
        Self::with(RegistryOptions::new())
    }

    #[track_caller]
    fn with(options: RegistryOptions) -> Option<Self> {
        let setup = Self::empty(options)?;
        setup.registry.push("a:1", &setup.image);
        Some(setup)
    }

    /// The same with nothing in the registry.
    #[track_caller]
    fn empty(options: RegistryOptions) -> Option<Self> {
        if !require::registry() {
            return None;
        }
        let store = Sandbox::new()?;
        fs::create_dir(store.dir().join("hosts")).unwrap();
        fs::write(store.dir().join("auth.json"), "{}").unwrap();
        let registry = Registry::start(options);
        let image = Image::new([big_layer(1), big_layer(2)]);
        let proxy = FaultProxy::start(registry.address());
        Some(Self { registry, proxy, store, image })
    }

    fn name(&self) -> String {
        format!("{}/a:1", self.proxy.host())
    }

    /// Writes the `hosts.toml` for the proxy.
    fn hosts(&self, toml: &str) {
        let dir = self.store.dir().join("hosts").join(self.proxy.host());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hosts.toml"), toml).unwrap();
    }

    /// The digest of the layer with this number, and its size.
    fn layer(&self, number: usize) -> (String, u64) {
        let layer = &self.image.layers[number];
        (layer.digest(), layer.blob.len() as u64)
    }

    /// GET requests for the layer with this number.
    fn of_layer(&self, number: usize) -> Match {
        Match::get(&self.layer(number).0)
    }

    /// Requests that were made for a layer.
    fn asked(&self, number: usize) -> Vec<Exchange> {
        self.proxy.traffic().of(&self.layer(number).0)
    }

    fn served(&self, number: usize) -> u64 {
        self.proxy.traffic().bytes_served(&self.layer(number).0)
    }

    fn command(&self, verb: &str, retry: &str, arguments: &[&str]) -> Command {
        let mut command = self.store.command([verb]);
        command.arg("--hosts-dir").arg(self.store.dir().join("hosts"));
        command.arg("--authfile").arg(self.store.dir().join("auth.json"));
        command.args(["--registry-retry", retry]).args(arguments);
        command
    }

    fn pull(&self) -> Run {
        self.pull_with(RETRY)
    }

    fn pull_with(&self, retry: &str) -> Run {
        Run::of(&mut self.command("pull", retry, &[&self.name()]), &[])
    }

    /// The image is here, and mounts as what it is.
    #[track_caller]
    fn assert_here(&self) {
        assert!(self.store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]).contains(&self.name()));
        let root = self.store.mount(&self.name());
        for seed in 1..=2 {
            let data = Rng::new(seed).bytes(SIZE);
            assert!(fs::read(root.join(format!("file{seed}"))).unwrap() == data, "file{seed} is another one");
        }
        self.store.umount(&root);
        self.store.assert_no_leftovers();
        assert!(self.store.names("partial").is_empty(), "{:?}", self.store.names("partial"));
    }

    /// No image is here, not even one without a name.
    #[track_caller]
    fn assert_nothing_named(&self) {
        assert_eq!(self.store.ok(["images", "-a", "-q"]), "");
        self.store.assert_no_leftovers();
    }

    /// A pull fails with this exit status and names nothing. Returns the sentence.
    #[track_caller]
    fn fails(&self, code: i32) -> String {
        self.fails_with(RETRY, code)
    }

    #[track_caller]
    fn fails_with(&self, retry: &str, code: i32) -> String {
        let sentence = self.pull_with(retry).failure(code);
        self.assert_nothing_named();
        sentence
    }

    /// Without faults the next pull succeeds. Returns what of the two layers came over the network for it.
    #[track_caller]
    fn heals(&self) -> [u64; 2] {
        self.proxy.heal();
        self.proxy.traffic().clear();
        self.pull().success();
        self.assert_here();
        [self.served(0), self.served(1)]
    }

    /// Where the beginning of a layer is kept.
    fn partial(&self, number: usize) -> PathBuf {
        self.store.root().join("partial").join(self.layer(number).0.replace(':', "-"))
    }

    fn partial_size(&self, number: usize) -> u64 {
        self.partial(number).metadata().map_or(0, |metadata| metadata.len())
    }
}

#[track_caller]
fn assert_says(sentence: &str, words: &str) {
    assert!(sentence.contains(words), "`{words}` is not in: {sentence}");
}
