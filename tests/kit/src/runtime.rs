//! Runs OCI bundles with runc and crun.
//!
//! What they need of a machine: root, and cgroups without systemd, which neither is asked to use. runc takes them as
//! they are, version 1, 2 or both. crun refuses a hierarchy of version 1 beside which version 2 has controllers
//! ("cgroups in hybrid mode not supported"); it is then run in a mount namespace without version 2. Neither needs
//! `--no-pivot`: a root filesystem that is a mount, or lies on a disk, can be pivoted to. It does not work from an
//! initramfs.
//!
//! In a user namespace the namespace's root must be able to reach the bundle: each directory above it lets others
//! pass, which those of [`tempfile`] do not.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::sandbox::Run;

/// The longest that a container may run, in seconds.
const TIME_LIMIT: &str = "120";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// runc.
    Runc,
    /// crun.
    Crun,
}

impl Runtime {
    /// All that there are.
    pub const ALL: [Self; 2] = [Self::Runc, Self::Crun];

    /// Its name, which is that of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    /// Runs the container of a bundle to its end. The exit status and what is printed are the container's, and the
    /// runtime's where it fails. Of the container nothing remains, even if the caller panics or the time is up.
    #[track_caller]
    pub fn run(self, bundle: &Path) -> Run {
        let state = tempfile::Builder::new().prefix("layerstore-run-").tempdir().unwrap();
        // Control groups have the container's name, and no state directory for themselves.
        let id = state.path().file_name().unwrap().to_str().unwrap().to_owned();
        let guard = Container { runtime: self, state: state.path(), id: &id };
        let mut command = self.command(state.path());
        Run::of(command.args(["run", "--bundle"]).arg(bundle).arg(guard.id), &[])
    }

    /// Starts the container of a bundle, which runs until it ends or the value goes.
    #[track_caller]
    pub fn start(self, bundle: &Path) -> Running {
        let state = tempfile::Builder::new().prefix("layerstore-run-").tempdir().unwrap();
        let running = Running { runtime: self, state };
        let mut command = self.command(running.state.path());
        command.args(["run", "--detach", "--bundle"]).arg(bundle).arg(running.id());
        // It would keep the pipes of a command whose output is read to its end.
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{command:?} failed");
        running
    }

    fn command(self, state: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", TIME_LIMIT]);
        if self == Self::Crun && is_hybrid() {
            let script = "umount /sys/fs/cgroup/unified && exec \"$@\"";
            command.args(["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh"]);
        }
        command.arg(self.name()).arg("--root").arg(state);
        if self == Self::Crun {
            command.arg("--cgroup-manager=cgroupfs");
        }
        command.env_clear().env("PATH", PATH).stdin(Stdio::null());
        command
    }
}

/// Whether control groups of both versions are mounted where crun looks for them, and it would refuse them.
fn is_hybrid() -> bool {
    !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
        && fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers")
            .is_ok_and(|controllers| !controllers.trim().is_empty())
}

/// A container that runs by itself.
#[derive(Debug)]
pub struct Running {
    runtime: Runtime,
    state: tempfile::TempDir,
}

impl Running {
    fn id(&self) -> &str {
        self.state.path().file_name().unwrap().to_str().unwrap()
    }

    /// Runs a program inside of it.
    #[must_use = "either look at the output or assert the exit status"]
    pub fn exec(&self, args: &[&str]) -> Run {
        Run::of(self.runtime.command(self.state.path()).arg("exec").arg(self.id()).args(args), &[])
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(Container { runtime: self.runtime, state: self.state.path(), id: self.id() });
    }
}

struct Container<'a> {
    runtime: Runtime,
    state: &'a Path,
    id: &'a str,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // After a container's end there is nothing to delete, and the runtime says so.
        self.runtime.command(self.state).args(["delete", "--force", self.id]).output().ok();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::require;

    /// A root filesystem that needs no image: the machine's own programs, read-only.
    fn bundle(dir: &Path, script: &str) {
        fs::create_dir(dir.join("rootfs")).unwrap();
        // crun insists on a `/dev`.
        let own = [("/proc", "proc"), ("/dev", "tmpfs")];
        let mut mounts =
            own.map(|(place, kind)| json!({ "destination": place, "type": kind, "source": kind })).to_vec();
        for name in ["bin", "lib", "lib64", "usr"] {
            let source = Path::new("/").join(name);
            if source.is_dir() {
                mounts.push(json!({
                    "destination": source, "type": "bind", "source": source, "options": ["bind", "ro"],
                }));
            }
        }
        let namespaces = ["pid", "mount", "ipc", "uts"].map(|kind| json!({ "type": kind }));
        let config = json!({
            "ociVersion": "1.0.2", "root": { "path": "rootfs" }, "mounts": mounts,
            "process": {
                "user": { "uid": 0, "gid": 0 }, "args": ["/bin/sh", "-c", script], "cwd": "/",
                "env": ["PATH=/usr/bin:/bin"],
            },
            "linux": { "namespaces": namespaces },
        });
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
    }

    #[test]
    fn privileged_both_runtimes_run_a_bundle() {
        if !require::root() || !require::runtimes() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        bundle(dir.path(), "echo out; echo err >&2; exit 3");
        for runtime in Runtime::ALL {
            let run = runtime.run(dir.path());
            assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (3, "out\n", "err\n"), "{run}");
        }
    }

    #[test]
    fn privileged_a_container_that_still_runs_is_deleted() {
        if !require::root() || !require::runtimes() {
            return;
        }
        for runtime in Runtime::ALL {
            let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            bundle(dir.path(), "sleep 1000");
            let id = format!("layerstore-left-{}", std::process::id());
            let container = Container { runtime, state: state.path(), id: &id };
            let start = ["run", "--detach", "--bundle"];
            let mut command = runtime.command(state.path());
            command.args(start).arg(dir.path()).arg(&id).stdout(Stdio::null()).stderr(Stdio::null());
            assert!(command.status().unwrap().success());
            let list = || runtime.command(state.path()).args(["list", "--quiet"]).output().unwrap().stdout;
            assert_eq!(String::from_utf8(list()).unwrap().trim(), id);
            drop(container);
            assert_eq!(list(), b"");
        }
    }
}
