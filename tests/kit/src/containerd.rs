//! Runs containerd with folders and a socket of its own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::daemon::{Daemon, folder, output_of};
use crate::image::host_architecture;
use crate::podman::PATH;

/// A containerd. It ends, and its files and mounts go, when it is dropped; it also ends with this process.
#[derive(Debug)]
pub struct Containerd {
    // Ends before its folder goes.
    _daemon: Daemon,
    dir: tempfile::TempDir,
}

impl Containerd {
    /// Starts a containerd and waits until it listens.
    #[track_caller]
    pub fn start() -> Self {
        let dir = folder("containerd");
        let config = dir.path().join("config.toml");
        fs::write(&config, configuration(dir.path())).unwrap();
        let command = [OsStr::new("containerd"), OsStr::new("--config"), config.as_os_str()];
        let daemon =
            Daemon::start(dir.path(), command, || UnixStream::connect(dir.path().join("sock")).is_ok());
        Self { _daemon: daemon, dir }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// A command of `ctr`, to be run by the caller.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(args).env_clear().env("PATH", PATH);
        command
    }

    /// Runs a command of `ctr` that must succeed; returns what it printed.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        output_of(&mut self.command(args))
    }

    /// Names of all images with the digests of their manifests or indexes, by name.
    #[track_caller]
    pub fn images(&self) -> Vec<(String, String)> {
        let table = self.ok(["image", "ls"]);
        let row = |line: &str| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.to_owned(), fields.nth(1)?.to_owned()))
        };
        table.lines().skip(1).filter_map(row).collect()
    }

    /// A manifest, index or config.
    #[track_caller]
    pub fn document(&self, digest: &str) -> Value {
        serde_json::from_str(&self.ok(["content", "get", digest])).unwrap()
    }

    /// The ID of the image `name`; of several platforms that of this machine's.
    #[track_caller]
    pub fn image_id(&self, name: &str) -> String {
        let images = self.images();
        let target = images.iter().find(|(other, _)| other == name);
        let (_, target) = target.unwrap_or_else(|| panic!("no image {name} among {images:?}"));
        let mut document = self.document(target);
        if let Some(manifests) = document["manifests"].as_array() {
            let is_ours = |entry: &&Value| entry["platform"]["architecture"] == host_architecture();
            let manifest = manifests.iter().find(is_ours).unwrap_or_else(|| panic!("{document}"));
            document = self.document(manifest["digest"].as_str().unwrap());
        }
        document["config"]["digest"].as_str().unwrap().to_owned()
    }
}

/// Everything below `dir`. The CRI plugin would look for networks, and `opt` would make `/opt/containerd`.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "version = 2\n\
         root = \"{dir}/root\"\n\
         state = \"{dir}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
         [grpc]\naddress = \"{dir}/sock\"\n\
         [ttrpc]\naddress = \"{dir}/sock.ttrpc\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Image, Layout};
    use crate::layer::LayerBuilder;
    use crate::require;

    #[test]
    fn privileged_containerd_imports_an_archive() {
        if !require::root() || !require::containerd() {
            return;
        }
        let image = Image::new([LayerBuilder::gzip().dir("etc").file("etc/x", "of the image").finish()]);
        let containerd = Containerd::start();
        let archive = containerd.dir.path().join("a.tar");
        fs::write(&archive, Layout::of("localhost/a:1", &image).archive()).unwrap();
        containerd.ok([OsStr::new("image"), OsStr::new("import"), archive.as_os_str()]);
        assert_eq!(containerd.image_id("localhost/a:1"), image.id());
        let (socket, dir) = (containerd.socket(), containerd.dir.path().to_owned());
        drop(containerd);
        assert!(UnixStream::connect(socket).is_err());
        assert!(!dir.exists());
    }
}
