//! Runs podman, another client of registries and another store, with folders of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Where peers and what they call are.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A store of podman in a folder. Its mounts are undone with the value.
#[derive(Debug)]
pub struct Podman {
    dir: PathBuf,
}

impl Podman {
    /// An empty store in `dir`, which must be able to hold overlay layers and outlive the value.
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let config = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/storage\"\nrunroot = \"{0}/run\"\n",
            dir.display()
        );
        fs::write(dir.join("storage.conf"), config).unwrap();
        fs::write(dir.join("containers.conf"), "[engine]\nevents_logger = \"none\"\n").unwrap();
        fs::write(dir.join("registries.conf"), "unqualified-search-registries = []\n").unwrap();
        fs::write(dir.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        Self { dir: dir.to_owned() }
    }

    /// A command, to be run by the caller.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new("podman");
        command
            .args(args)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &self.dir)
            .env("CONTAINERS_STORAGE_CONF", self.dir.join("storage.conf"))
            .env("CONTAINERS_CONF", self.dir.join("containers.conf"))
            .env("CONTAINERS_REGISTRIES_CONF", self.dir.join("registries.conf"));
        command
    }

    /// Runs a command that must succeed; returns what it printed.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let mut command = self.command(args);
        let out = command.output().unwrap_or_else(|e| panic!("podman: {e}: run scripts/setup-tests"));
        assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Pulls an image from a registry without TLS. Returns its ID, with the algorithm before it.
    #[track_caller]
    pub fn pull(&self, reference: &str) -> String {
        let policy = self.dir.join("policy.json");
        let policy = policy.to_str().unwrap();
        let out = self.ok(["pull", "--quiet", "--tls-verify=false", "--signature-policy", policy, reference]);
        format!("sha256:{}", out.trim())
    }

    /// Loads an archive of any form.
    #[track_caller]
    pub fn load(&self, archive: &Path) {
        let (policy, archive) = (self.dir.join("policy.json"), archive.to_str().unwrap());
        self.ok(["load", "--quiet", "--signature-policy", policy.to_str().unwrap(), "--input", archive]);
    }

    /// The ID of an image, with the algorithm before it.
    #[track_caller]
    pub fn image_id(&self, image: &str) -> String {
        format!("sha256:{}", self.inspect(image)["Id"].as_str().unwrap())
    }

    /// What `podman image inspect` says of an image.
    #[track_caller]
    pub fn inspect(&self, image: &str) -> Value {
        let list: Value = serde_json::from_str(&self.ok(["image", "inspect", image])).unwrap();
        list[0].clone()
    }

    /// Mounts an image and returns where. It stays until the value is dropped.
    #[track_caller]
    pub fn mount(&self, image: &str) -> PathBuf {
        PathBuf::from(self.ok(["image", "mount", image]).trim_end())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.command(["image", "umount", "--all"]).output().ok();
        // Podman mounts its folder of layers on itself.
        rustix::mount::unmount(self.dir.join("storage/overlay"), rustix::mount::UnmountFlags::DETACH).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use crate::layer::LayerBuilder;
    use crate::registry::Registry;
    use crate::require;

    #[test]
    fn privileged_podman_pulls_from_a_registry() {
        if !require::root() || !require::registry() || !require::podman() {
            return;
        }
        let registry = Registry::plain();
        let image = Image::new([LayerBuilder::gzip().dir("etc").file("etc/x", "of the image").finish()]);
        registry.push("a/b:1", &image);
        let parent = std::env::var_os("LAYERSTORE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::tempdir_in(parent).unwrap();
        let podman = Podman::new(dir.path());
        let reference = registry.reference("a/b:1");
        assert_eq!(podman.pull(&reference), image.id());
        assert_eq!(podman.inspect(&reference)["Architecture"], image.config["architecture"]);
        let root = podman.mount(&reference);
        assert_eq!(fs::read(root.join("etc/x")).unwrap(), b"of the image");
        drop(podman);
        assert!(!root.join("etc/x").exists());
        dir.close().unwrap();
    }
}
