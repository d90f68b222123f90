//! Whether a registry accepts a credential.

use std::sync::Arc;

use reqwest::Method;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::request::{Call, Target};
use crate::secret::Secret;
use crate::watch::Watch;

impl Client {
    /// Makes sure that the registry `domain` itself, not one of its mirrors, accepts the credentials of this client.
    /// A registry that asks for none accepts any.
    ///
    /// A token server is asked for an identity token, as Docker does; if it gives one, that is to be kept in place of
    /// the password.
    pub fn log_in(&self, domain: &str, watch: &dyn Watch) -> Result<Option<Secret>> {
        let mut repository = self.open(domain, "", watch)?;
        // The last host is the registry; those before stand in for it.
        let Some(host) = repository.hosts.last().map(Arc::clone) else {
            return Err(Error::NoHost { domain: domain.to_owned(), what: "login" });
        };
        if host.namespace.is_some() {
            return Err(Error::Elsewhere { domain: domain.to_owned(), server: host.authority() });
        }
        repository.hosts = vec![Arc::clone(&host)];
        let mut call = Call::new(Method::GET, Target::Base, "the API");
        call.login = true;
        repository.send_patiently(&host, &call, self.shared.retry.attempts)?;
        Ok(self.shared.authorizer.identity_token(&host))
    }
}
