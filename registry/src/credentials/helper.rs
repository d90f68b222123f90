//! Programs that keep credentials: the protocol of `docker-credential-helpers`.
//!
//! A program `docker-credential-NAME` is run with `get`, `store` or `erase`. It reads the name of the registry, or for
//! `store` a JSON object, and prints a JSON object or, with a non-zero exit status, a message. Its standard error goes
//! nowhere: a library has no place to show it, and it may hold secrets.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::{Credential, CredentialError};

/// What helpers print where they have nothing. It is part of the protocol, though it is a sentence.
const NOTHING_FOUND: &[u8] = b"credentials not found in native keychain";
/// The user's name that marks an identity token.
const TOKEN_USER: &str = "<token>";
/// A helper may ask the user for a passphrase.
const TIME_LIMIT: Duration = Duration::from_mins(1);
/// Tokens of the clouds have a few KiB.
const MAX_ANSWER: u64 = 1 << 20;
/// How often to look whether a helper has ended that has closed its output.
const POLL: Duration = Duration::from_millis(5);

/// A helper that was found.
#[derive(Debug)]
pub(super) struct Helper {
    /// The name of the program, for messages.
    program: String,
    /// What to run.
    file: OsString,
    limit: Duration,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

impl Helper {
    /// The helper of a name from a file, looked for in the directories given, or by the process's own search.
    pub(super) fn find(name: &str, path: Option<&OsStr>) -> Result<Self, CredentialError> {
        let program = format!("docker-credential-{name}");
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(CredentialError::HelperName { name: printable(name) });
        }
        let file = match path {
            None => OsString::from(&program),
            Some(path) => match search(&program, path) {
                Some(file) => file.into_os_string(),
                None => return Err(CredentialError::HelperMissing { program }),
            },
        };
        Ok(Self { program, file, limit: TIME_LIMIT })
    }

    #[cfg(test)]
    pub(super) fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// What it keeps for a registry.
    pub(super) fn get(&self, server: &str) -> Result<Option<Credential>, CredentialError> {
        let (status, output) = self.run("get", server.to_owned())?;
        if !status.success() {
            return if output.trim_ascii() == NOTHING_FOUND {
                Ok(None)
            } else {
                Err(self.failed("get", status))
            };
        }
        let answer: Answer = serde_json::from_slice(&output)
            .map_err(|_| self.malformed("it is no JSON object with `Username` and `Secret`"))?;
        if answer.secret.is_empty() {
            return Ok(None);
        }
        Ok(Some(if answer.username == TOKEN_USER {
            Credential::IdentityToken(answer.secret.into())
        } else {
            Credential::Basic { username: answer.username, password: answer.secret.into() }
        }))
    }

    /// Has it keep a credential for a registry.
    pub(super) fn store(&self, server: &str, credential: &Credential) -> Result<(), CredentialError> {
        let (username, secret) = match credential {
            Credential::Basic { username, password } => (username.as_str(), password),
            Credential::IdentityToken(token) => (TOKEN_USER, token),
            Credential::RegistryToken(_) => {
                return Err(CredentialError::Unstorable {
                    reason: "a credential helper keeps no registry tokens",
                });
            }
        };
        let input = json!({ "ServerURL": server, "Username": username, "Secret": secret.reveal() });
        let (status, _) = self.run("store", input.to_string())?;
        if status.success() { Ok(()) } else { Err(self.failed("store", status)) }
    }

    /// Has it forget a registry. Returns whether it knew it, as far as it says.
    pub(super) fn erase(&self, server: &str) -> Result<bool, CredentialError> {
        let (status, output) = self.run("erase", server.to_owned())?;
        if status.success() {
            Ok(true)
        } else if output.trim_ascii() == NOTHING_FOUND {
            Ok(false)
        } else {
            Err(self.failed("erase", status))
        }
    }

    fn run(&self, action: &'static str, input: String) -> Result<(ExitStatus, Vec<u8>), CredentialError> {
        let deadline = Instant::now() + self.limit;
        let start = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => CredentialError::HelperMissing { program: self.program.clone() },
            _ => CredentialError::HelperStart { program: self.program.clone(), source },
        };
        let mut child = Command::new(&self.file)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(start)?;
        let (send, receive) = mpsc::channel();
        // Both ends have a thread, since a helper may neither read nor write. Neither thread outlives the helper for
        // long, and nobody waits for them: a child of the helper may hold its pipes for ever.
        if let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) {
            // A helper that does not read all it is told says why with its exit status. Rust programs ignore SIGPIPE.
            thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
            thread::spawn(move || {
                let mut output = Vec::new();
                let result = stdout.take(MAX_ANSWER + 1).read_to_end(&mut output);
                drop(send.send(result.map(|_| output)));
            });
        }
        let output = receive.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let status = match &output {
            Ok(Ok(output)) if output.len() as u64 <= MAX_ANSWER => wait_until(&mut child, deadline),
            _ => None,
        };
        let Some(status) = status else {
            // It may have ended meanwhile, in which case there is nothing to kill; reaped it must be.
            drop(child.kill());
            drop(child.wait());
            return Err(match output {
                Ok(Ok(output)) if output.len() as u64 > MAX_ANSWER => {
                    self.malformed("it is longer than 1 MiB")
                }
                Ok(Err(source)) => start(source),
                _ => CredentialError::HelperTimeout {
                    program: self.program.clone(),
                    action,
                    seconds: self.limit.as_secs(),
                },
            });
        };
        Ok((status, output.ok().and_then(Result::ok).unwrap_or_default()))
    }

    fn failed(&self, action: &'static str, status: ExitStatus) -> CredentialError {
        CredentialError::HelperFailed { program: self.program.clone(), action, status }
    }

    fn malformed(&self, reason: &'static str) -> CredentialError {
        CredentialError::HelperAnswer { program: self.program.clone(), reason }
    }
}

/// Waits for a child until a moment; `None` if it has not ended then.
fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            _ => return None,
        }
    }
}

/// The first executable file of a name. A relative directory is passed over: what it means depends on where we are.
fn search(program: &str, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|file| {
            file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        })
}

/// A name that cannot be a program's, cut to what a message can show.
fn printable(name: &str) -> String {
    name.chars().take(60).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}
