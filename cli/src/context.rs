//! What the environment says: where the store is, what to log, whether colours are wanted.

use std::env;
use std::ffi::OsStr;
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
    pub(crate) verbose: bool,
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

    /// The store, for a command that writes to it.
    pub(crate) fn store(&self) -> Result<Layerstore, Failure> {
        let store = self.store_to_look()?;
        store.check_writable()?;
        Ok(store)
    }

    /// The store, for a command that only looks: it may be on a filesystem that is read-only.
    pub(crate) fn store_to_look(&self) -> Result<Layerstore, Failure> {
        Ok(Layerstore::open(&self.root()?)?)
    }

    /// The store, for a command that only says what it would do if this is a `dry_run`.
    pub(crate) fn store_or_look(&self, dry_run: bool) -> Result<Layerstore, Failure> {
        if dry_run { self.store_to_look() } else { self.store() }
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

/// When what is made counts as made, if the environment says so: in seconds since 1970, see
/// <https://reproducible-builds.org/specs/source-date-epoch/>.
pub(crate) fn source_date_epoch() -> Result<Option<i64>, Failure> {
    epoch(env::var_os("SOURCE_DATE_EPOCH").as_deref())
}

fn epoch(value: Option<&OsStr>) -> Result<Option<i64>, Failure> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    let digits = value.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    // The last second of the year 9999, behind which the times of an image's config have no form.
    match digits.and_then(|text| text.parse().ok()).filter(|seconds| *seconds < 253_402_300_800) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Failure::usage(format!(
            "SOURCE_DATE_EPOCH is `{}`, which is no number of seconds since 1970",
            value.display()
        ))),
    }
}

/// A variable of the environment, if it is text.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
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

    #[test]
    fn the_time_of_making_is_a_number_of_seconds() {
        let parsed = |text: &str| epoch(Some(OsStr::new(text)));
        assert_eq!(epoch(None), Ok(None));
        assert_eq!(parsed(""), Ok(None));
        assert_eq!(parsed("0"), Ok(Some(0)));
        assert_eq!(parsed("1700000000"), Ok(Some(1_700_000_000)));
        for wrong in ["-1", "1.5", "now", "+3", " 1", "253402300800", "99999999999999999999"] {
            assert_eq!(parsed(wrong).unwrap_err().exit, crate::errors::Exit::WrongUsage, "{wrong}");
        }
    }
}
