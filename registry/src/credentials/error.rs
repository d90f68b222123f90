//! Why credentials were not found or not kept.

use std::io;
use std::path::PathBuf;

use layerstore_oci::ErrorKind;

/// Credentials that could not be looked up, stored or erased. No message holds what a file or helper said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The host is no `host` or `host:port`.
    #[error("credentials are kept for a host such as `registry.example.com:5000`, not for what was given")]
    Host,
    /// A file of credentials exists and could not be read.
    #[error("cannot read the credentials file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file of credentials is not JSON.
    #[error("the credentials file {} is not valid JSON at line {line}, column {column}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
    },
    /// A file of credentials is JSON, but not as Docker or podman write it.
    #[error("the credentials file {} is malformed: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The entry for a registry makes no sense.
    #[error("the entry for {server} in the credentials file {} is malformed: {reason}; log in again to replace it", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The registry.
        server: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file of credentials could not be written.
    #[error("cannot write the credentials file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// There is no file to write to.
    #[error("there is no file to keep credentials in")]
    NoFile,
    /// The credential has a form that cannot be kept.
    #[error("cannot store the credential: {reason}")]
    Unstorable {
        /// Why not.
        reason: &'static str,
    },
    /// A file names a helper that cannot be one.
    #[error("`{name}` is no name of a credential helper; correct it in the credentials file")]
    HelperName {
        /// The name, shortened and made printable.
        name: String,
    },
    /// A helper is not installed.
    #[error(
        "the credential helper {program} is not installed; install it, or remove it from the credentials file"
    )]
    HelperMissing {
        /// The program.
        program: String,
    },
    /// A helper could not be run.
    #[error("cannot run the credential helper {program}")]
    HelperStart {
        /// The program.
        program: String,
        /// The reason.
        source: io::Error,
    },
    /// A helper reported a failure.
    #[error(
        "the credential helper {program} failed to {action} ({status}); run `{program} {action}` to see why"
    )]
    HelperFailed {
        /// The program.
        program: String,
        /// `get`, `store` or `erase`.
        action: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A helper did not end in time, and was ended.
    #[error("the credential helper {program} did not {action} within {seconds} seconds")]
    HelperTimeout {
        /// The program.
        program: String,
        /// `get`, `store` or `erase`.
        action: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// What a helper printed is not what the protocol asks for.
    #[error("the answer of the credential helper {program} is malformed: {reason}")]
    HelperAnswer {
        /// The program.
        program: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl CredentialError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => match ErrorKind::of_io(source) {
                ErrorKind::NoSpace => ErrorKind::NoSpace,
                // A file that is in the way or gone is nothing that the caller asked for by name.
                _ => ErrorKind::Io,
            },
            Self::Host
            | Self::Syntax { .. }
            | Self::Malformed { .. }
            | Self::Entry { .. }
            | Self::NoFile
            | Self::HelperName { .. }
            | Self::Unstorable { .. } => ErrorKind::InvalidInput,
            Self::HelperMissing { .. }
            | Self::HelperStart { .. }
            | Self::HelperFailed { .. }
            | Self::HelperTimeout { .. }
            | Self::HelperAnswer { .. } => ErrorKind::Io,
        }
    }
}
