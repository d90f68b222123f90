//! What the environment says: where the store is, what to log, whether colours are wanted.

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;

use layerstore::Layerstore;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Global, LogFormat, ProgressForm};
use crate::errors::Failure;
use crate::progress::Progress;

/// What every verb needs to know.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) quiet: bool,
    root: Option<PathBuf>,
    progress: ProgressForm,
    verbose: bool,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        let verbose = global.verbose > 0;
        Self { quiet: global.quiet, root: global.root, progress: global.progress, verbose }
    }

    /// Where the store is, as an absolute path: it is printed, and stays right when a directory is
    /// mounted and the shell moves on.
    pub(crate) fn root(&self) -> Result<PathBuf, Failure> {
        let root = match &self.root {
            Some(root) => root.clone(),
            None => default_root(rustix::process::geteuid().is_root(), |name| {
                env::var_os(name).map(PathBuf::from)
            })
            .ok_or_else(|| {
                Failure::usage("cannot tell where the store is: neither XDG_DATA_HOME nor HOME is set")
                    .hint("give a directory with --root")
            })?,
        };
        std::path::absolute(&root)
            .map_err(|_| Failure::usage(format!("`{}` is not a directory for a store", root.display())))
    }

    pub(crate) fn store(&self) -> Result<Layerstore, Failure> {
        Ok(Layerstore::open(&self.root()?)?)
    }

    /// Says something worth knowing that is not an error.
    pub(crate) fn note(&self, text: &str) {
        self.progress().note(text);
    }

    /// Says what is about to happen.
    pub(crate) fn talk(&self, text: &str) {
        self.progress().say(text);
    }

    /// Warns in words of Docker's, which begin with a warning themselves.
    pub(crate) fn warn(&self, text: &str) {
        if !self.quiet {
            // If nobody listens, there is nobody to complain to.
            drop(io::stderr().write_all(format!("{text}\n").as_bytes()));
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.progress, self.quiet, self.verbose)
    }
}

/// The store of the system for root, one of their own for others (XDG base directory specification:
/// a path that is not absolute is ignored).
fn default_root(is_root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if is_root {
        return Some(PathBuf::from("/var/lib/layerstore"));
    }
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data.join("layerstore"))
}

/// <https://no-color.org>, and terminals that have no colours.
pub(crate) fn colours_wanted() -> bool {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Logs to standard error: warnings, with `-v` what is done, with `-vv` details.
///
/// Only what our own crates have to say: those of others log headers and URLs, and with them passwords and tokens.
pub(crate) fn start_log(global: &Global, colour: bool) {
    let level = match (global.quiet, global.verbose) {
        (true, 0) => LevelFilter::ERROR,
        (_, 0) => LevelFilter::WARN,
        (_, 1) => LevelFilter::INFO,
        (_, 2) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let ours = Targets::new().with_target("layerstore", level);
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    match global.log_format {
        LogFormat::Text => log.with_ansi(colour).with_target(false).compact().finish().with(ours).init(),
        LogFormat::Json => log.json().finish().with(ours).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(is_root: bool, variables: &[(&str, &str)]) -> Option<PathBuf> {
        default_root(is_root, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    fn the_store_is_where_the_user_may_write() {
        let home = ("HOME", "/home/u");
        assert_eq!(root_with(true, &[home]), Some("/var/lib/layerstore".into()));
        assert_eq!(root_with(false, &[home]), Some("/home/u/.local/share/layerstore".into()));
        assert_eq!(root_with(false, &[home, ("XDG_DATA_HOME", "/data")]), Some("/data/layerstore".into()));
        let relative = ("XDG_DATA_HOME", "data");
        assert_eq!(root_with(false, &[home, relative]), Some("/home/u/.local/share/layerstore".into()));
        assert_eq!(root_with(false, &[relative]), None);
    }
}
