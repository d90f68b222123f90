//! Where a failure becomes an exit code, one sentence and hints.
//!
//! ```text
//! error: <sentence, with its causes after colons>
//! hint: <what to do about it>
//! ```

use std::error::Error as StdError;
use std::io::{self, Write as _};

use layerstore::oci::{Digest, ErrorKind};
use rustix::io::Errno;

use crate::format::printable;
use crate::template::TemplateError;

/// The exit codes that scripts may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    WrongUsage = 2,
    NotFound = 3,
    /// In use, exists already, or not in a state for it.
    Conflict = 4,
    /// Damaged, or failed verification.
    Corrupt = 5,
    NoSpace = 6,
    Unauthorized = 7,
    Unavailable = 8,
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::AlreadyExists | ErrorKind::InUse | ErrorKind::WrongState => Self::Conflict,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::NoSpace => Self::NoSpace,
            ErrorKind::Unauthorized => Self::Unauthorized,
            ErrorKind::Unavailable => Self::Unavailable,
            // InvalidInput, Unsupported, Io and what later versions add.
            _ => Self::Failed,
        }
    }
}

/// A failed command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Empty where there is nobody to tell: the reader of our output has gone.
    pub(crate) sentence: String,
    pub(crate) hints: Vec<String>,
}

impl Failure {
    /// A command line that is well formed but asks for what makes no sense.
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self { exit: Exit::WrongUsage, sentence: sentence.into(), hints: Vec::new() }
    }

    /// An error of a kind, told with its causes.
    pub(crate) fn of(kind: ErrorKind, error: &(dyn StdError + 'static)) -> Self {
        let mut hints = Vec::new();
        if kind == ErrorKind::NoSpace {
            hints.push("`layerstore gc` frees what nothing needs any more".to_owned());
        }
        match refused(error) {
            Some(Errno::PERM) => hints.push("this needs root".to_owned()),
            Some(_) => hints.push("run it as root, or choose a store of your own with --root".to_owned()),
            None => {}
        }
        Self { exit: kind.into(), sentence: sentence(error), hints }
    }

    /// Standard output cannot be written. If its reader has gone, that is no failure: it has seen
    /// what it wanted, as in `layerstore images | head -1`.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Done, sentence: String::new(), hints: Vec::new() };
        }
        let sentence = format!("cannot write to standard output: {}", sentence(error));
        Self { exit: ErrorKind::of_io(error).into(), sentence, hints: Vec::new() }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Tells standard error, in one write. There is nowhere to say that this failed.
    pub(crate) fn report(&self, colour: bool) {
        drop(io::stderr().write_all(self.render(colour).as_bytes()));
    }

    fn render(&self, colour: bool) -> String {
        if self.sentence.is_empty() {
            return String::new();
        }
        let (error, hint) =
            if colour { ("\x1b[1;31merror:\x1b[0m", "\x1b[1;36mhint:\x1b[0m") } else { ("error:", "hint:") };
        let mut out = format!("{error} {}\n", printable(&self.sentence));
        for text in &self.hints {
            out.extend([hint, " ", &printable(text), "\n"]);
        }
        out
    }
}

impl From<layerstore::Error> for Failure {
    fn from(error: layerstore::Error) -> Self {
        use layerstore::Error;

        let mut failure = Self::of(error.kind(), &error);
        if matches!(error, Error::NoSetting { .. } | Error::BadSetting { .. } | Error::Change(_)) {
            failure.exit = Exit::WrongUsage;
        }
        match &error {
            Error::NoImage { .. } => failure.hint("`layerstore images` lists what there is"),
            Error::Ambiguous { images, .. } => {
                let ids: Vec<String> = images.iter().map(Digest::short).collect();
                failure.hint(format!("give more digits of one of {}", ids.join(", ")))
            }
            Error::SeveralNames { .. } => {
                failure.hint("remove the names one by one, or all of them at once with --force")
            }
            Error::Pinned { .. } => failure.hint("unpin it first, or use --force"),
            Error::LastSource { name, .. } => failure
                .hint(format!("`layerstore pull --no-unpack {name}` fetches them; --force takes the name away all the same")),
            Error::Mounted { target, .. } => {
                failure.hint(format!("`layerstore umount {}` first", target.display()))
            }
            Error::UsedByContainers { .. } => {
                failure.hint("`layerstore rm` removes containers; --force takes the name away all the same")
            }
            Error::ContainerMounted { name, .. } => failure.hint(format!("`layerstore umount {name}` first")),
            Error::Diff { .. } | Error::Tree { .. } if error.kind() == ErrorKind::InUse => {
                failure.hint("stop what writes to it, and try again")
            }
            Error::Output { .. } if error.kind() == ErrorKind::NoSpace => {
                // The store's disk may be another.
                failure.hints.clear();
                failure
            }
            Error::Bundle(layerstore::BundleError::NoCommand) => {
                failure.hint("give a command behind the directory: `layerstore bundle IMAGE DIR COMMAND`")
            }
            Error::NoContainer { .. } => failure.hint("`layerstore ps -a` lists what there is"),
            Error::NoImageOrContainer { .. } => {
                failure.hint("`layerstore ps -a` and `layerstore images` list what there is")
            }
            Error::AmbiguousContainer { .. } => failure.hint("give more digits, or a name"),
            Error::AmbiguousDigits { .. } => failure.hint("give more digits"),
            Error::NothingCalled { .. } => failure.hint(
                "`layerstore images` and `layerstore ps -a` list names; of a digest give four digits or more, of a path \
                 that below the store",
            ),
            Error::NotMounted { .. } => failure.hint("`layerstore mount` lists what is mounted"),
            Error::Store(layerstore::StoreError::NameTaken { name, .. }) => {
                failure.hint(format!("choose another, or `layerstore rm {name}` first"))
            }
            Error::Store(layerstore::StoreError::NoPrivilege { .. }) => {
                failure.hints.clear();
                failure
                    .hint("run it as root, or in a user namespace: `unshare --user --map-root-user --mount`")
            }
            Error::Store(layerstore::StoreError::ReadOnly { .. }) => failure.hint(READ_ONLY),
            Error::Store(layerstore::StoreError::Unreadable { .. }) => {
                failure.hint("look at a copy of its directory, or make the filesystem writable")
            }
            Error::Store(layerstore::StoreError::LostTree { what, .. }) => match what
                .strip_prefix("container ")
            {
                Some(name) => failure.hint(format!("what it had written is lost: `layerstore rm {name}`")),
                None => failure,
            },
            Error::NoSetting { known, .. } => failure.hint(format!("there is {}", known.join(", "))),
            error if error.is_unprivileged() => {
                failure.hints = vec![MOUNTING.to_owned()];
                failure
            }
            error if error.is_limit() => failure
                .hint("if you trust the image, raise the limit: see `layerstore limits` and `load --limit`"),
            Error::NoPlatform { .. } => failure.hint("choose one of them with --platform"),
            Error::Incomplete { present, .. } => {
                let failure = failure.hint("`layerstore pull --all-platforms` gets the rest");
                if present.is_empty() {
                    return failure;
                }
                failure.hint(format!("choose one of {} with --platform", present.join(", ")))
            }
            Error::ImageArchive { name } => failure.hint(format!("`layerstore load -i {name}` takes it")),
            Error::Evicted { name, source, .. } => failure.hint(match source {
                Some(_) => format!("once a registry has them again, `layerstore pull --no-unpack {name}` gets them too"),
                None => format!(
                    "`layerstore pull {name}` finds out if its registry has them; an archive that has them can be loaded"
                ),
            }),
            Error::NotAnImage { .. } => failure.hint("`save --format oci` takes it"),
            Error::NoDestination { .. } => {
                failure.hint("name the destination: `layerstore push IMAGE HOST/NAME:TAG`")
            }
            Error::NoRoom { .. } => failure.hint("it is an estimate: --force tries it all the same"),
            Error::Registry(error) => {
                failure.hints.extend(registry_hints(error));
                failure
            }
            _ => failure,
        }
    }
}

/// What to do where nothing can be written.
const READ_ONLY: &str = "what only looks works: df, images, ps, inspect, why, gc --dry-run; `dmesg` tells if the kernel has met an error";

/// How to be allowed to mount.
const MOUNTING: &str = "run it as root, or as root of a user namespace with its own mounts: \
                        `unshare --user --map-root-user --map-auto --mount`";

/// Where the API of Docker Hub is.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// What a person can do about what a registry says.
fn registry_hints(error: &layerstore::registry::Error) -> Vec<String> {
    use layerstore::registry::{Error, Problem};

    let login = |host: &str| {
        if host == DOCKER_HUB { "layerstore login".to_owned() } else { format!("layerstore login {host}") }
    };
    let looked_up = |host: &str, repository: &str| {
        (host == DOCKER_HUB).then(|| {
            let name = repository.strip_prefix("library/").unwrap_or(repository);
            format!("`{name}` was looked up on docker.io; name the registry host for an image from elsewhere")
        })
    };
    match error {
        Error::Unauthorized { host, repository, sent, .. } | Error::Denied { host, repository, sent, .. } => {
            let advice = if *sent {
                format!("`{}` with an account that may do this; the image may also not exist", login(host))
            } else {
                format!("`{}` if it is private; it may also not exist", login(host))
            };
            looked_up(host, repository).into_iter().chain([advice]).collect()
        }
        Error::Auth { host, source } if source.kind() == ErrorKind::Unauthorized => {
            vec![format!("`{}` asks for the password once more", login(host))]
        }
        Error::NotFound { host, repository, .. } => looked_up(host, repository).into_iter().collect(),
        Error::NotARegistry { host, .. } => {
            vec![format!("is `{host}` the name of a registry? the host is what comes before the first `/`")]
        }
        Error::Unreachable { host, problem, .. } => match problem {
            Problem::UnknownHost => {
                vec![format!("check the name `{host}` and this machine's DNS")]
            }
            Problem::Certificate => vec![format!(
                "put the registry's CA into /etc/docker/certs.d/{host}/ca.crt; or trust anybody with --insecure"
            )],
            Problem::NotTls => vec!["for plain HTTP give --plain-http".to_owned()],
            _ => Vec::new(),
        },
        Error::TooManyRequests { host, .. } => {
            vec![format!("wait, or `{}` for a higher limit", login(host))]
        }
        _ => Vec::new(),
    }
}

/// What went wrong in a command, which may have been told to do several things.
#[derive(Debug)]
pub(crate) struct Failures(pub(crate) Vec<Failure>);

impl Failures {
    /// The first failure decides, unless it is only that the reader has gone.
    pub(crate) fn exit(&self) -> Exit {
        self.0.iter().map(|failure| failure.exit).find(|exit| *exit != Exit::Done).unwrap_or(Exit::Done)
    }
}

impl<E: Into<Failure>> From<E> for Failures {
    fn from(error: E) -> Self {
        Self(vec![error.into()])
    }
}

/// Does the same to each of several things, and goes on where one fails.
pub(crate) fn for_each<T>(
    things: impl IntoIterator<Item = T>,
    mut action: impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failures> {
    let failures: Vec<Failure> = things.into_iter().filter_map(|thing| action(thing).err()).collect();
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        let failure = Self::usage(format!("wrong --format: {error}"));
        if error.fields.is_empty() {
            return failure;
        }
        let fields: Vec<String> = error.fields.iter().map(|name| format!(".{name}")).collect();
        failure.hint(format!("there is {}", fields.join(", ")))
    }
}

/// An error and its causes, joined by colons. A cause that the text above it repeats is left out.
fn sentence(error: &(dyn StdError + 'static)) -> String {
    let mut text = plain(error);
    for cause in chain(error).skip(1).map(plain) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// An error, its cause, the cause of that, and so on.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The text of one error without Rust's `(os error 2)`, which repeats what the words say.
fn plain(error: &(dyn StdError + 'static)) -> String {
    let text = error.to_string();
    let bare = text.rsplit_once(" (os error ").filter(|(_, code)| {
        code.strip_suffix(')').is_some_and(|code| code.bytes().all(|b| b.is_ascii_digit()))
    });
    match bare {
        Some((bare, _)) => bare.to_owned(),
        None => text,
    }
}

/// `EPERM` (an operation that is root's, such as mounting) or `EACCES` (a file of someone else), if
/// that is the cause.
fn refused(error: &(dyn StdError + 'static)) -> Option<Errno> {
    let errno = |error: &(dyn StdError + 'static)| Errno::from_io_error(error.downcast_ref::<io::Error>()?);
    chain(error).find_map(|error| errno(error).filter(|errno| matches!(*errno, Errno::PERM | Errno::ACCESS)))
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<dyn StdError + 'static>>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Link {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref()
        }
    }

    fn load_failed(errno: i32) -> Link {
        let cause = Link("cannot open /x", Some(io::Error::from_raw_os_error(errno).into()));
        Link("cannot load app.tar", Some(cause.into()))
    }

    #[test]
    fn causes_follow_colons() {
        let failure = Failure::of(ErrorKind::NotFound, &load_failed(2));
        assert_eq!(failure.sentence, "cannot load app.tar: cannot open /x: No such file or directory");
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.hints.is_empty());
        let repeats = Link("it is broken: really", Some(Link("really", None).into()));
        assert_eq!(sentence(&repeats), "it is broken: really");
    }

    #[test]
    fn what_the_machine_refuses_gets_a_hint() {
        assert!(Failure::of(ErrorKind::Io, &load_failed(13)).hints[0].contains("--root"));
        assert_eq!(Failure::of(ErrorKind::Io, &load_failed(1)).hints, ["this needs root"]);
        let full = Failure::of(ErrorKind::NoSpace, &load_failed(28));
        assert_eq!((full.exit, full.hints.len()), (Exit::NoSpace, 1));
    }

    #[test]
    fn every_kind_has_its_code() {
        let codes = [
            (ErrorKind::NotFound, 3),
            (ErrorKind::AlreadyExists, 4),
            (ErrorKind::InUse, 4),
            (ErrorKind::WrongState, 4),
            (ErrorKind::Corrupt, 5),
            (ErrorKind::NoSpace, 6),
            (ErrorKind::Unauthorized, 7),
            (ErrorKind::Unavailable, 8),
            (ErrorKind::InvalidInput, 1),
            (ErrorKind::Unsupported, 1),
            (ErrorKind::Io, 1),
        ];
        for (kind, code) in codes {
            assert_eq!(Exit::from(kind) as u8, code, "{kind:?}");
        }
    }

    #[test]
    fn a_report_is_a_sentence_and_hints() {
        let failure = Failure::usage("no\nimage\x1b[2J").hint("look again");
        assert_eq!(failure.render(false), "error: no image [2J\nhint: look again\n");
        assert!(failure.render(true).starts_with("\x1b[1;31merror:\x1b[0m no image"));
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = Failure::output(&io::Error::from_raw_os_error(32));
        assert_eq!((gone.exit, gone.render(false).as_str()), (Exit::Done, ""));
        let full = Failure::output(&io::Error::from_raw_os_error(28));
        assert_eq!(full.exit, Exit::NoSpace);
        assert_eq!(full.sentence, "cannot write to standard output: No space left on device");
    }

    #[test]
    fn the_first_of_several_failures_decides() {
        let gone = || Failure::output(&io::Error::from_raw_os_error(32));
        let missing = || Failure::of(ErrorKind::NotFound, &load_failed(2));
        let result = for_each([Some(gone()), None, Some(missing()), Some(Failure::usage("x"))], |failure| {
            failure.map_or(Ok(()), Err)
        });
        let failures = result.unwrap_err();
        assert_eq!((failures.exit(), failures.0.len()), (Exit::NotFound, 3));
        assert!(for_each([1, 2], |_| Ok(())).is_ok());
    }

    #[test]
    fn a_wrong_field_names_the_right_ones() {
        let error = TemplateError {
            message: "can't evaluate field X".into(),
            fields: vec!["ID".into(), "Tag".into()],
        };
        let failure = Failure::from(error);
        assert_eq!(
            failure.render(false),
            "error: wrong --format: can't evaluate field X\nhint: there is .ID, .Tag\n"
        );
        assert_eq!(failure.exit, Exit::WrongUsage);
    }
}
