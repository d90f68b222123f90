//! Changes to an image's config, in the words of a Dockerfile: what `--change` of `commit` and `import` takes.
//!
//! The instructions that Docker allows there (`validCommitCommands` of the Moby builder), and `STOPSIGNAL` as with
//! Podman, with the syntax of the [Dockerfile reference](https://docs.docker.com/reference/dockerfile/).
//! Variables of the image's own environment are put in, as Docker does. `ENTRYPOINT []` takes the
//! entrypoint away, as in a Dockerfile; `docker commit` merges it in again. Other than with Docker, a `WORKDIR` has no
//! `..` left, an `EXPOSE` with a port of the host is refused, and so is an instruction behind which nothing follows.

mod apply;
mod health;
mod value;
mod word;

use self::word::{Word, split};
use crate::ErrorKind;

pub use self::apply::apply;

/// Longest instruction, in bytes. The kernel does not give a program a longer argument.
const MAX_LENGTH: usize = 128 << 10;

/// Why an instruction cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Nothing at all.
    #[error("a change to the image's config is empty")]
    Empty,
    /// None of the instructions that can change a config.
    #[error(
        "`{instruction}` is no instruction that changes an image's config: there is CMD, ENTRYPOINT, ENV, EXPOSE, \
         HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR"
    )]
    Unknown {
        /// The first word, cut where it is long.
        instruction: String,
    },
    /// An instruction with something wrong behind it.
    #[error("{instruction}: {reason}")]
    Invalid {
        /// The instruction.
        instruction: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A config that grows beyond what is sensible.
    #[error("{instruction}: the result has more than {limit} bytes")]
    TooLong {
        /// The instruction.
        instruction: &'static str,
        /// How many are allowed.
        limit: usize,
    },
}

impl ChangeError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// One instruction that changes how an image's containers run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change(Instruction);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Instruction {
    Cmd(Command),
    Entrypoint(Command),
    Env(Vec<(Word, Word)>),
    Expose(Vec<Word>),
    HealthCheck(health::Check),
    Label(Vec<(Word, Word)>),
    OnBuild(String),
    StopSignal(Word),
    User(Word),
    Volume(Vec<Word>),
    WorkDir(Word),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Command {
    /// A JSON list.
    Exec(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}

impl Instruction {
    fn name(&self) -> &'static str {
        match self {
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::HealthCheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::OnBuild(_) => "ONBUILD",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::WorkDir(_) => "WORKDIR",
        }
    }
}

impl Change {
    /// Reads one instruction: `CMD ["sh"]`, `ENV A=b C="d e"`; also with an equals sign behind its name, as Podman
    /// takes it: `CMD=sh`.
    ///
    /// # Errors
    /// [`ChangeError`] names the instruction and what is wrong with it.
    ///
    /// # Examples
    /// ```
    /// use layerstore_oci::{Change, apply_changes};
    ///
    /// let changes = [Change::parse("ENV PATH=/opt/bin:$PATH")?, Change::parse("CMD [\"app\"]")?];
    /// let mut config = serde_json::Map::new();
    /// config.insert("Env".to_owned(), serde_json::json!(["PATH=/bin"]));
    /// apply_changes(&changes, &mut config)?;
    /// assert_eq!(config["Env"], serde_json::json!(["PATH=/opt/bin:/bin"]));
    /// assert_eq!(config["Cmd"], serde_json::json!(["app"]));
    /// assert!(Change::parse("RUN make").is_err());
    /// # Ok::<(), layerstore_oci::ChangeError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ChangeError> {
        let text = text.trim();
        let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if name.is_empty() {
            return Err(ChangeError::Empty);
        }
        let rest = rest.strip_prefix('=').unwrap_or(rest);
        let read: fn(&str) -> Result<Instruction, String> = match name.to_ascii_uppercase().as_str() {
            "CMD" => |rest| command(rest).map(Instruction::Cmd),
            "ENTRYPOINT" => |rest| command(rest).map(Instruction::Entrypoint),
            "ENV" => |rest| pairs(rest).map(Instruction::Env),
            "EXPOSE" => {
                |rest| several(&split(rest), |text| value::ports(text).map(|_| ())).map(Instruction::Expose)
            }
            "HEALTHCHECK" => |rest| health::Check::parse(rest).map(Instruction::HealthCheck),
            "LABEL" => |rest| pairs(rest).map(Instruction::Label),
            "ONBUILD" => |rest| on_build(rest).map(Instruction::OnBuild),
            "STOPSIGNAL" => |rest| one(rest, value::signal).map(Instruction::StopSignal),
            "USER" => |rest| one(rest, value::filled).map(Instruction::User),
            "VOLUME" => |rest| {
                let words = json_list(rest)?.unwrap_or_else(|| split(rest));
                several(&words, value::filled).map(Instruction::Volume)
            },
            "WORKDIR" => |rest| one(rest, value::filled).map(Instruction::WorkDir),
            _ => {
                let instruction: String = name.chars().take(40).collect();
                return Err(ChangeError::Unknown { instruction: instruction.escape_debug().to_string() });
            }
        };
        // The name as it is written in the list above.
        let instruction = NAMES.iter().find(|known| known.eq_ignore_ascii_case(name)).copied().unwrap_or("");
        let invalid = |reason| ChangeError::Invalid { instruction, reason };
        if text.len() > MAX_LENGTH {
            return Err(ChangeError::TooLong { instruction, limit: MAX_LENGTH });
        }
        // A line may be continued, but there is only one.
        let rest = rest.replace("\\\n", "");
        let rest = rest.trim();
        if rest.contains(['\n', '\r', '\0']) {
            return Err(invalid(
                "it goes over more than one line; each instruction is a change of its own".to_owned(),
            ));
        }
        if rest.is_empty() {
            return Err(invalid("nothing follows it".to_owned()));
        }
        read(rest).map(Self).map_err(invalid)
    }
}

const NAMES: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl std::str::FromStr for Change {
    type Err = ChangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// What is no JSON list is a line for the shell, as in `[ -e /x ] && run`. So says the Dockerfile reference.
fn command(rest: &str) -> Result<Command, String> {
    Ok(json_list(rest)?.map_or_else(|| Command::Shell(rest.to_owned()), Command::Exec))
}

fn json_list(rest: &str) -> Result<Option<Vec<String>>, String> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else { return Ok(None) };
    let text = |value| match value {
        serde_json::Value::String(text) if text.contains('\0') => Err("a NUL byte in the list".to_owned()),
        serde_json::Value::String(text) => Ok(text),
        other => Err(format!("`{other}` in the list is no string")),
    };
    list.into_iter().map(text).collect::<Result<Vec<String>, String>>().map(Some)
}

/// `A=b C="d e"`, or the old form `A b c`.
fn pairs(rest: &str) -> Result<Vec<(Word, Word)>, String> {
    let words = split(rest);
    let mut pairs = Vec::with_capacity(words.len());
    if words.first().is_some_and(|word| !word.contains('=')) {
        let Some((name, value)) = rest.split_once(char::is_whitespace) else {
            return Err("it has the form NAME=VALUE".to_owned());
        };
        pairs.push((word(name)?, word(value.trim_start())?));
    } else {
        for text in words {
            let Some((name, value)) = text.split_once('=') else {
                return Err(format!("`{}` is not of the form NAME=VALUE", text.escape_debug()));
            };
            pairs.push((word(name)?, word(value)?));
        }
    }
    for (name, _) in &pairs {
        if let Some(name) = name.literal() {
            value::name(name)?;
        }
    }
    Ok(pairs)
}

fn word(text: &str) -> Result<Word, String> {
    Word::parse(text).map_err(str::to_owned)
}

/// All that follows is one word. `check` is done here where it has no variables, else when these are put in.
fn one(rest: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<Word, String> {
    let word = word(rest)?;
    word.literal().map_or(Ok(()), check)?;
    Ok(word)
}

fn several(words: &[String], check: impl Fn(&str) -> Result<(), String>) -> Result<Vec<Word>, String> {
    if words.is_empty() {
        return Err("the list is empty".to_owned());
    }
    words.iter().map(|word| one(word, &check)).collect()
}

/// Kept as it is, for the build of another image.
fn on_build(rest: &str) -> Result<String, String> {
    let first = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if ["ONBUILD", "FROM", "MAINTAINER"].contains(&first.as_str()) {
        return Err(format!("{first} cannot be put off to another build"));
    }
    Ok(rest.to_owned())
}

#[cfg(test)]
mod tests;
