//! Where the credentials of a registry come from, and where `login` puts them.
//!
//! [`AuthFiles`] reads Docker's `config.json` and the `auth.json` of podman, buildah and skopeo, which have one format,
//! and runs the credential helpers that these files name. The environment is not read: which files there are, and where
//! helpers are, is for the caller to say.

mod error;
mod file;
mod fixed;
mod helper;
mod key;
mod login;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::PathBuf;

pub use error::CredentialError;
pub use fixed::FixedCredential;
pub use key::registry_name;
pub use login::Stored;

use crate::Secret;
use file::AuthFile;
use key::Server;

/// What a client proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password, or what a server takes for a password.
    Basic {
        /// The user's name.
        username: String,
        /// The user's password.
        password: Secret,
    },
    /// An `OAuth2` refresh token, which the token server exchanges for a token (`identitytoken` in the files).
    IdentityToken(Secret),
    /// A token that the registry itself takes, as it is (`registrytoken` in the files).
    RegistryToken(Secret),
}

/// Something that knows credentials.
pub trait Credentials: Send + Sync + Debug {
    /// The credential for a repository, or `None` where there is none: the registry is then asked without.
    ///
    /// `host` is `host` or `host:port`; Docker Hub goes by any of its names (`docker.io`, `index.docker.io`,
    /// `registry-1.docker.io`). `repository` is the name below the host, such as `library/nginx`; it may be empty.
    fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>, CredentialError>;
}

/// The files that Docker's and podman's `login` write, and the helpers that they name.
///
/// The first file with an answer wins; a helper that is not installed is an error only if no file has one. Within a file, as the Docker CLI has it (`cli/config/configfile`): the helper
/// that `credHelpers` has for the host, else the one in `credsStore`, else `auths`. Where `credsStore` has nothing,
/// `auths` of the same file is asked, too: podman, which knows no `credsStore`, may have written it. An empty name in
/// `credHelpers` means `auths`, past `credsStore`.
///
/// In `auths`, as containers-auth.json(5) has it, the entry of the longest namespace that the repository is in wins,
/// `quay.io/team/image` before `quay.io/team` before `quay.io`. Entries for the host itself are found under each
/// spelling that old and new versions of `docker login` have used: `quay.io`, `https://quay.io`, `http://quay.io/v1/`.
#[derive(Debug, Clone, Default)]
pub struct AuthFiles {
    /// The files, in order of precedence. The first is the one that is written; the others are only read, as with
    /// podman. A file need not exist.
    pub files: Vec<PathBuf>,
    /// The directories that helpers are looked for in, in the form of `PATH`; only absolute ones count. `None` is the
    /// search of the process.
    pub helper_path: Option<OsString>,
}

impl AuthFiles {
    /// These files, in order of precedence, and helpers from the `PATH` of the process.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self { files, helper_path: None }
    }
}

impl Credentials for AuthFiles {
    fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>, CredentialError> {
        let server = Server::new(host)?;
        let mut missing = None;
        for path in &self.files {
            let Some(file) = AuthFile::read(path)? else { continue };
            match self.find_in(&file, &server, repository) {
                // Another file may know, and then nobody needs the helper.
                Err(error @ CredentialError::HelperMissing { .. }) => missing = missing.or(Some(error)),
                Ok(None) => {}
                done => return done,
            }
        }
        missing.map_or(Ok(None), Err)
    }
}

impl AuthFiles {
    fn find_in(
        &self,
        file: &AuthFile,
        server: &Server,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        let Some(chosen) = file.helper(server)? else { return file.entry(server, repository) };
        let found = self.helper(&chosen.name)?.get(&chosen.server)?;
        if found.is_some() || chosen.for_this_host {
            return Ok(found);
        }
        file.entry(server, repository)
    }

    fn helper(&self, name: &str) -> Result<helper::Helper, CredentialError> {
        helper::Helper::find(name, self.helper_path.as_deref())
    }
}
