//! What `login` and `logout` do to the files and helpers.

use std::path::PathBuf;

use super::file::AuthFile;
use super::key::Server;
use super::{AuthFiles, Credential, CredentialError};

/// Where a credential is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// In a file, where whoever can read the file can read it: it is encoded, not encrypted.
    File(PathBuf),
    /// With the helper of this name, `docker-credential-NAME`.
    Helper(String),
}

impl Stored {
    /// Whether the credential lies on the disk in plain text.
    pub fn is_plain_text(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl AuthFiles {
    /// Keeps a credential for a registry: with the helper that the first file names for it, else in the first file,
    /// which is made if need be (mode 0600, its directories 0700). It replaces what was there for the registry as a
    /// whole; credentials of single namespaces stay.
    ///
    /// A later call of another tool that writes the file at the same moment may be lost, or win: none of the tools
    /// that share these files lock them.
    pub fn store(&self, host: &str, credential: &Credential) -> Result<Stored, CredentialError> {
        let server = Server::new(host)?;
        let path = self.files.first().ok_or(CredentialError::NoFile)?;
        let existing = AuthFile::read(path)?;
        let exists = existing.is_some();
        let mut file = existing.unwrap_or_else(|| AuthFile::empty(path));
        let Some(chosen) = file.helper(&server)? else {
            file.put(&server, Some(credential))?;
            file.write()?;
            return Ok(Stored::File(path.clone()));
        };
        self.helper(&chosen.name)?.store(&chosen.server, credential)?;
        if exists {
            file.put(&server, None)?;
            file.write()?;
        }
        Ok(Stored::Helper(chosen.name))
    }

    /// Forgets the credentials of a registry as a whole, under every spelling of it, in the first file and with the
    /// helper that it names. Returns where there were any; empty means that nobody was logged in. The other files are
    /// left alone: [`find`](super::Credentials::find) tells whether one of them still has a credential.
    pub fn erase(&self, host: &str) -> Result<Vec<Stored>, CredentialError> {
        let server = Server::new(host)?;
        let path = self.files.first().ok_or(CredentialError::NoFile)?;
        let Some(mut file) = AuthFile::read(path)? else { return Ok(Vec::new()) };
        let mut places = Vec::new();
        let helper = match file.helper(&server)? {
            None => Ok(()),
            // Some helpers answer to `erase` of what they do not have as if they had it, so that is asked first.
            Some(chosen) => self.helper(&chosen.name).and_then(|helper| {
                let known = helper.get(&chosen.server)?.is_some();
                if helper.erase(&chosen.server)? && known {
                    places.push(Stored::Helper(chosen.name));
                }
                Ok(())
            }),
        };
        // What lies in plain text goes even if the helper fails.
        let held = !matches!(file.entry(&server, ""), Ok(None));
        if file.remove(&server)? {
            file.write()?;
            if held {
                places.push(Stored::File(path.clone()));
            }
        }
        helper.map(|()| places)
    }
}
