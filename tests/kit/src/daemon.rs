//! A program that runs in the background of a test, and ends with the value or with this process.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::registry::poll;
use crate::sandbox::unmount_below;

/// The program is asked to end when standard input does, which ends with this process, however that ends.
const RUN: &str = r#"
exec 3<&0
"$@" 3<&- & daemon=$!
(cat <&3 >/dev/null; kill -TERM $daemon) & guard=$!
wait $daemon
kill $guard"#;

/// A running daemon, whose files are all in one folder. What it has mounted there is undone with the value.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Runs `command` with nothing of the person's environment, and waits until `is_ready`.
    #[track_caller]
    pub(crate) fn start<A: AsRef<OsStr>>(
        dir: &Path,
        command: impl IntoIterator<Item = A>,
        is_ready: impl Fn() -> bool,
    ) -> Self {
        let log = dir.join("log");
        let out = File::create(&log).unwrap();
        let child = Command::new("sh")
            .args(["-c", RUN, "sh"])
            .args(command)
            .env_clear()
            .env("PATH", crate::podman::PATH)
            .env("HOME", dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .unwrap_or_else(|e| panic!("sh: {e}"));
        let mut daemon = Self { child, dir: dir.to_owned(), log };
        let ready = poll(|| {
            let has_ended = daemon.child.try_wait().unwrap().is_some();
            (has_ended || is_ready()).then_some(!has_ended)
        });
        assert_eq!(ready, Some(true), "the daemon does not start:\n{}", daemon.log());
        daemon
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if poll(|| self.child.try_wait().unwrap()).is_none() {
            // It does not end when it is asked to.
            kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
            self.child.wait().ok();
        }
        unmount_below(&self.dir);
    }
}

/// Runs a client that must succeed; returns what it printed.
#[track_caller]
pub(crate) fn output_of(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: run scripts/setup-tests"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// An empty folder for a daemon, in `$LAYERSTORE_TEST_DIR` or the system's temporary folder, which must be able to
/// hold overlay layers.
pub(crate) fn folder(name: &str) -> tempfile::TempDir {
    let parent = std::env::var_os("LAYERSTORE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new().prefix(&format!("layerstore-{name}-")).tempdir_in(parent).unwrap()
}
