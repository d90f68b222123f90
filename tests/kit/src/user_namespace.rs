//! A user namespace of its own, with a mount namespace, as rootless engines have it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A namespace in which root is the caller, and nobody else exists. It ends with the value.
#[derive(Debug)]
pub struct UserNamespace {
    keeper: Child,
}

impl UserNamespace {
    /// Makes one, with the tools of util-linux.
    pub fn new() -> Self {
        let mut keeper = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "--propagation",
                "private",
                "--kill-child",
                "--fork",
            ])
            // It tells that it is there, and ends when nobody holds its input any more.
            .args(["sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run unshare: {e}"));
        let mut line = String::new();
        BufReader::new(keeper.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "there is no user namespace");
        Self { keeper }
    }

    /// The same command, run in the namespace.
    pub fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.pid(), "--user", "--mount", "--preserve-credentials", "--no-fork"]);
        inside.arg("--").arg(command.get_program()).args(command.get_args());
        inside.env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = command.get_current_dir() {
            inside.current_dir(directory);
        }
        inside
    }

    /// How a path of the namespace is seen from outside.
    pub fn outside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The child of `unshare`, which is in the namespaces.
    fn pid(&self) -> String {
        let parent = self.keeper.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        children.split_whitespace().next().expect("the namespace has ended").to_owned()
    }
}

impl Default for UserNamespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}
