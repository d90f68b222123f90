//! A credential that is there already, such as the one that somebody logs in with.

use super::key::Server;
use super::{Credential, CredentialError, Credentials};

/// One credential for one registry, and nothing for any other.
#[derive(Debug, Clone)]
pub struct FixedCredential {
    server: Server,
    credential: Credential,
}

impl FixedCredential {
    /// `credential` for the registry `host`, which may be given by any of its spellings.
    pub fn new(host: &str, credential: Credential) -> Result<Self, CredentialError> {
        Ok(Self { server: Server::new(host)?, credential })
    }
}

impl Credentials for FixedCredential {
    fn find(&self, host: &str, _repository: &str) -> Result<Option<Credential>, CredentialError> {
        Ok((Server::new(host)? == self.server).then(|| self.credential.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_registry_gets_it() {
        let credential = Credential::RegistryToken("t".into());
        let fixed = FixedCredential::new("https://index.docker.io/v1/", credential.clone()).unwrap();
        assert_eq!(fixed.find("registry-1.docker.io", "a/b").unwrap(), Some(credential));
        for other in ["docker.io:5000", "mirror.example", "docker.io.example"] {
            assert_eq!(fixed.find(other, "a/b").unwrap(), None, "{other}");
        }
    }
}
