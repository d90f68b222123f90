//! Runs dockerd with folders and a socket of its own, and without networks.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::containerd::Containerd;
use crate::daemon::{Daemon, folder, output_of};
use crate::podman::PATH;

/// A dockerd with a containerd of its own. Both end, and their files and mounts go, when it is dropped; they also end
/// with this process.
///
/// It takes a second to start: a test with several questions asks one value.
#[derive(Debug)]
pub struct DockerEngine {
    // Ends before its containerd, and both before their folders go.
    _daemon: Daemon,
    _containerd: Containerd,
    dir: tempfile::TempDir,
}

impl DockerEngine {
    /// Starts a dockerd and waits until it answers.
    #[track_caller]
    pub fn start() -> Self {
        let containerd = Containerd::start();
        let dir = folder("dockerd");
        let path = |name: &str| dir.path().join(name).display().to_string();
        // Else it would read the one of the machine.
        fs::write(dir.path().join("daemon.json"), "{}").unwrap();
        let command = [
            "dockerd".to_owned(),
            format!("--config-file={}", path("daemon.json")),
            format!("--data-root={}", path("data")),
            format!("--exec-root={}", path("exec")),
            format!("--pidfile={}", path("pid")),
            format!("--host=unix://{}", path("sock")),
            format!("--containerd={}", containerd.socket().display()),
            "--bridge=none".to_owned(),
            "--iptables=false".to_owned(),
            "--ip-forward=false".to_owned(),
        ];
        let socket = dir.path().join("sock");
        let daemon = Daemon::start(dir.path(), &command, || answers(&socket));
        Self { _daemon: daemon, _containerd: containerd, dir }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// A command of `docker`, to be run by the caller.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new("docker");
        command
            .args(["--host", &format!("unix://{}", self.socket().display())])
            .args(args)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.dir.path());
        command
    }

    /// Runs a command of `docker` that must succeed; returns what it printed.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        output_of(&mut self.command(args))
    }

    /// Loads an archive, and returns the names, or the IDs of images without one, that Docker tells.
    #[track_caller]
    pub fn load(&self, archive: &Path) -> Vec<String> {
        let said = self.ok([OsStr::new("load"), OsStr::new("-i"), archive.as_os_str()]);
        let name = |line: &str| {
            Some(line.strip_prefix("Loaded image")?.trim_start_matches(" ID").get(2..)?.to_owned())
        };
        said.lines().filter_map(name).collect()
    }

    /// What `docker image inspect` says of an image.
    #[track_caller]
    pub fn inspect(&self, image: &str) -> Value {
        let list: Value = serde_json::from_str(&self.ok(["image", "inspect", image])).unwrap();
        list[0].clone()
    }

    /// The ID of an image, with the algorithm before it.
    #[track_caller]
    pub fn image_id(&self, image: &str) -> String {
        self.inspect(image)["Id"].as_str().unwrap().to_owned()
    }
}

/// Whether the daemon says that it is well. It takes requests before it is, and answers when it is.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(" 200 ") && answer.ends_with("OK"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::Archive;
    use crate::image::Image;
    use crate::layer::{Compression, LayerBuilder};
    use crate::require;

    #[test]
    fn privileged_docker_loads_an_archive_and_goes() {
        if !require::root() || !require::docker() {
            return;
        }
        let layer = LayerBuilder::new(Compression::None).dir("etc").file("etc/x", "of the image");
        let image = Image::new([layer.finish()]);
        let docker = DockerEngine::start();
        let archive = docker.dir.path().join("a.tar");
        fs::write(&archive, Archive::new().image(&["localhost/a:1"], &image).legacy()).unwrap();
        assert_eq!(docker.load(&archive), ["localhost/a:1"]);
        assert_eq!(docker.image_id("localhost/a:1"), image.id());
        fs::write(&archive, Archive::new().image(&[], &image).legacy()).unwrap();
        assert_eq!(docker.load(&archive), [image.id()]);
        let (socket, dir) = (docker.socket(), docker.dir.path().to_owned());
        drop(docker);
        assert!(UnixStream::connect(socket).is_err());
        assert!(!dir.exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
    }
}
