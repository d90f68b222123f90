//! Runs verbs that speak to registries, with settings and logins of the test alone.

use std::path::PathBuf;
use std::{fs, thread};

use layerstore_testkit::fault_proxy::FaultProxy;
use layerstore_testkit::image::Image;
use layerstore_testkit::layer::{Layer, LayerBuilder};
use layerstore_testkit::registry::Registry;
use layerstore_testkit::require;
use layerstore_testkit::rng::Rng;
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::tree::Snapshot;

use crate::small_layer;

/// The folder that stands in the place of `/etc/containerd/certs.d`.
pub(crate) fn hosts_dir(store: &Sandbox) -> PathBuf {
    let dir = store.dir().join("hosts");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Writes the `hosts.toml` of a registry.
pub(crate) fn write_hosts(store: &Sandbox, registry: &str, toml: &str) {
    let dir = hosts_dir(store).join(registry);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("hosts.toml"), toml).unwrap();
}

/// Runs a verb, such as `["pull"]`, with its arguments. The home is the sandbox's folder.
#[must_use = "either look at the output or assert the exit status"]
pub(crate) fn remote(store: &Sandbox, verb: &[&str], args: &[&str]) -> Run {
    let hosts = hosts_dir(store);
    let hosts = ["--hosts-dir", hosts.to_str().unwrap()];
    let mut command = store.command([verb, &hosts, args].concat());
    command.env("XDG_RUNTIME_DIR", store.dir().join("run"));
    Run::of(&mut command, &[])
}

#[must_use = "either look at the output or assert the exit status"]
pub(crate) fn pull(store: &Sandbox, args: &[&str]) -> Run {
    remote(store, &["pull"], args)
}

#[must_use = "either look at the output or assert the exit status"]
pub(crate) fn push(store: &Sandbox, args: &[&str]) -> Run {
    remote(store, &["push"], args)
}

/// A store and an open registry, or nothing where such tests are left out.
#[track_caller]
pub(crate) fn setting() -> Option<(Sandbox, Registry)> {
    if !require::registry() {
        return None;
    }
    Some((Sandbox::new()?, Registry::plain()))
}

pub(crate) fn two_layers(name: &str) -> Image {
    Image::new([small_layer("base"), small_layer(name)])
}

/// A store with the image `a:1` of a registry.
#[track_caller]
pub(crate) fn pulled(image: &Image) -> Option<(Sandbox, Registry, String)> {
    let (store, registry) = setting()?;
    registry.push("a:1", image);
    let name = registry.reference("a:1");
    pull(&store, &[&name]).success();
    Some((store, registry, name))
}

/// Pulls `name` by as many processes at once.
pub(crate) fn pull_at_once(store: &Sandbox, name: &str, processes: usize) -> Vec<Run> {
    thread::scope(|scope| {
        let pulls: Vec<_> = (0..processes).map(|_| scope.spawn(|| pull(store, &[name]).success())).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    })
}

/// An image has these files and nothing else.
#[track_caller]
pub(crate) fn assert_holds(store: &Sandbox, name: &str, files: &[&str]) {
    let root = store.mount(name);
    let tree = Snapshot::of(&root);
    for file in files {
        assert!(tree.has(file), "{name} has {file}");
    }
    assert_eq!(tree.entries.len(), files.len() + 1, "{name} has nothing else");
    store.umount(&root);
}

/// The requests that came, without the one that asks how to log in.
pub(crate) fn requests(proxy: &FaultProxy) -> Vec<String> {
    proxy.traffic().requests().into_iter().filter(|line| !line.ends_with(" /v2/")).collect()
}

/// A layer of `kilobytes` that do not compress.
pub(crate) fn noise(kilobytes: usize) -> Layer {
    let mut rng = Rng::new(7);
    let bytes = std::iter::repeat_with(|| rng.number().to_le_bytes()).flatten().take(kilobytes << 10);
    LayerBuilder::gzip().file("noise", bytes.collect::<Vec<_>>()).finish()
}
