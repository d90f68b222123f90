//! What a test needs from the machine it runs on.
//!
//! A test that cannot run fails and says why. `LAYERSTORE_TEST_SKIP` names what a person asked to leave
//! out, with commas between: `privileged` (tests that need root), `peers` (tests that need the real images or
//! the real registry of `scripts/setup-tests`), `sandbox` (tests that need Landlock). `LAYERSTORE_LONG=1` asks for tests that take
//! minutes. A test that is left out says so on stderr, and so does one of a feature that this kernel was built
//! without ([`kernel_has`]).

use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder that holds the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Whether to run a test that needs root.
#[track_caller]
pub fn root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    check("privileged", is_root, "this test needs root: it creates owners, devices and mounts")
}

/// Whether to run a test that needs a kernel with Landlock, which the caller has looked for.
#[track_caller]
pub fn landlock(is_there: bool) -> bool {
    check("sandbox", is_there, "this test needs Landlock: Linux 5.19, not switched off")
}

/// The folder of real images, or nothing when tests with them are left out.
#[track_caller]
pub fn images() -> Option<PathBuf> {
    let dir = std::env::var_os("LAYERSTORE_TEST_CACHE")
        .map_or_else(|| workspace().join("tests/cache"), PathBuf::from);
    let message = format!("there are no test images in {}: run scripts/setup-tests", dir.display());
    check("peers", dir.join("recipe").exists(), &message).then_some(dir)
}

/// Whether to run a test that needs a real registry and skopeo.
#[track_caller]
pub fn registry() -> bool {
    programs(&["docker-registry", "skopeo"])
}

/// Whether to run a test that needs podman.
#[track_caller]
pub fn podman() -> bool {
    programs(&["podman"])
}

/// Whether to run a test that needs runc and crun.
#[track_caller]
pub fn runtimes() -> bool {
    programs(&["runc", "crun"])
}

/// Whether to run a test that needs Docker.
#[track_caller]
pub fn docker() -> bool {
    programs(&["dockerd", "docker", "containerd"])
}

/// Whether to run a test that needs containerd.
#[track_caller]
pub fn containerd() -> bool {
    programs(&["containerd", "ctr"])
}

/// Whether to run a test that needs Chromium.
#[track_caller]
pub fn chromium() -> bool {
    programs(&["chromium"])
}

#[track_caller]
fn programs(names: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let missing = names.iter().find(|name| !is_there(name));
    let message = format!("there is no `{}`: run scripts/setup-tests", missing.unwrap_or(&""));
    check("peers", missing.is_none(), &message)
}

#[track_caller]
fn check(kind: &str, met: bool, message: &str) -> bool {
    let skip = std::env::var("LAYERSTORE_TEST_SKIP").unwrap_or_default();
    if met || !skip.split(',').any(|s| s.trim() == kind) {
        assert!(met, "{message}, or set LAYERSTORE_TEST_SKIP={kind} to leave such tests out");
        return true;
    }
    say(&format!("skipped, as LAYERSTORE_TEST_SKIP asks: {message}"));
    false
}

/// Whether to test what `what` names, which is no part of every kernel: nobody can install it.
pub fn kernel_has(is_there: bool, what: &str) -> bool {
    if !is_there {
        say(&format!("skipped, as this kernel has no {what}"));
    }
    is_there
}

/// Whether to test for minutes (`LAYERSTORE_LONG=1`).
pub fn is_long() -> bool {
    std::env::var_os("LAYERSTORE_LONG").is_some_and(|value| value == "1")
}

/// Whether to run a test that takes minutes.
pub fn long() -> bool {
    if !is_long() {
        say("skipped, as it takes minutes: set LAYERSTORE_LONG=1 to run it");
    }
    is_long()
}

fn say(message: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // The macros' output is captured and shown for failures only; this is not.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "{name}: {message}").unwrap();
}
