//! What to show to which host: it is asked once without, and remembered from then on.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::blocking::Client;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::auth::{BearerChallenge, Challenge, Purpose, Scope, Token, challenges, fetch_token};
use crate::credentials::{Credential, CredentialError, Credentials};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::secret::Secret;

/// Knows how each host wants to be asked, and the tokens it has been given.
#[derive(Debug)]
pub(crate) struct Authorizer {
    credentials: Option<Arc<dyn Credentials>>,
    state: Mutex<State>,
    /// Held while a token is fetched: many layers need the same one at the same time.
    fetching: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    schemes: HashMap<String, Scheme>,
    tokens: HashMap<(String, String), Token>,
    /// Helpers are programs, and slow.
    found: HashMap<(String, String), Option<Credential>>,
    /// Names for which there is no helper.
    warned: HashSet<String>,
}

#[derive(Debug, Clone)]
enum Scheme {
    Basic,
    Bearer(BearerChallenge),
}

/// Who is asked for what, and how.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) host: &'a Host,
    /// What the host's credentials are looked up by.
    pub(crate) name: String,
    pub(crate) repository: &'a str,
    pub(crate) scopes: &'a [Scope],
    /// Shows no certificate: for the token server.
    pub(crate) http: &'a Client,
    pub(crate) plain_http: bool,
    /// Whether an identity token is wanted, and nothing else.
    pub(crate) login: bool,
}

impl Authorizer {
    pub(crate) fn new(credentials: Option<Arc<dyn Credentials>>) -> Self {
        Self { credentials, state: Mutex::default(), fetching: Mutex::default() }
    }

    /// What the host is known to want to see.
    pub(crate) fn known(&self, request: &Request<'_>) -> Result<Option<HeaderValue>> {
        let scheme = self.state().schemes.get(&request.host.authority()).cloned();
        match scheme {
            None => Ok(None),
            Some(Scheme::Basic) => self.basic(request),
            Some(Scheme::Bearer(challenge)) => self.token(request, &challenge, None).map(Some),
        }
    }

    /// What to show to a host that answered 401 with `headers` to what was sent, `rejected`. `None` if there is
    /// nothing (else) to show.
    pub(crate) fn answer(
        &self,
        request: &Request<'_>,
        headers: &HeaderMap,
        rejected: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>> {
        let mut scheme = None;
        for challenge in challenges(headers) {
            match challenge {
                Challenge::Bearer(challenge) => scheme = Some(Scheme::Bearer(challenge)),
                Challenge::Basic { .. } => scheme = scheme.or(Some(Scheme::Basic)),
                Challenge::Other { .. } => {}
            }
        }
        let Some(scheme) = scheme else { return Ok(None) };
        self.state().schemes.insert(request.host.authority(), scheme.clone());
        match scheme {
            Scheme::Basic => Ok(self.basic(request)?.filter(|header| Some(header) != rejected)),
            Scheme::Bearer(challenge) => self.token(request, &challenge, rejected).map(Some),
        }
    }

    /// The identity token that the host's token server has given.
    pub(crate) fn identity_token(&self, host: &Host) -> Option<Secret> {
        let authority = host.authority();
        self.state().tokens.iter().find(|((host, _), _)| *host == authority)?.1.refresh.clone()
    }

    /// Whether requests to this host are made in somebody's name.
    pub(crate) fn has_credentials(&self, host: &str, repository: &str) -> bool {
        self.credential(host, repository).is_ok_and(|credential| credential.is_some())
    }

    fn basic(&self, request: &Request<'_>) -> Result<Option<HeaderValue>> {
        match self.credential(&request.name, request.repository)? {
            Some(Credential::Basic { username, password }) => {
                let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.reveal()));
                Ok(header(&format!("Basic {pair}")))
            }
            Some(Credential::RegistryToken(token)) => Ok(header(&format!("Bearer {}", token.reveal()))),
            Some(Credential::IdentityToken(_)) | None => Ok(None),
        }
    }

    /// A token other than the `rejected` one, from those that are there or from the token server.
    fn token(
        &self,
        request: &Request<'_>,
        challenge: &BearerChallenge,
        rejected: Option<&HeaderValue>,
    ) -> Result<HeaderValue> {
        let host = request.host.authority();
        let scopes = Scope::merge(request.scopes);
        let text: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let key = (host.clone(), text.join(" "));
        let cached = || {
            let header = self.state().tokens.get(&key).filter(|token| token.is_fresh()).and_then(bearer);
            header.filter(|header| Some(header) != rejected)
        };
        if let Some(header) = cached() {
            return Ok(header);
        }
        // Somebody else may fetch the same one just now.
        let _one_at_a_time = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = cached() {
            return Ok(header);
        }
        let credential = self.credential(&request.name, request.repository)?;
        let purpose = if request.login { Purpose::Login } else { Purpose::Access };
        let token =
            fetch_token(request.http, challenge, &scopes, credential.as_ref(), request.plain_http, purpose)
                .map_err(|source| Error::Auth { host: host.clone(), source })?;
        let header = bearer(&token).ok_or_else(|| Error::Protocol {
            host,
            what: "a token".to_owned(),
            reason: "it cannot be sent in a header".to_owned(),
        })?;
        self.state().tokens.insert(key, token);
        Ok(header)
    }

    fn credential(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let key = (host.to_owned(), repository.to_owned());
        if let Some(found) = self.state().found.get(&key) {
            return Ok(found.clone());
        }
        let found = match credentials.find(host, repository) {
            // Much can be had without; where not, the refusal comes after this.
            Err(error @ CredentialError::HelperMissing { .. }) => {
                if self.state().warned.insert(host.to_owned()) {
                    tracing::warn!("going on without credentials for {host}: {error}");
                }
                None
            }
            found => found?,
        };
        self.state().found.insert(key, found.clone());
        Ok(found)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(token: &Token) -> Option<HeaderValue> {
    header(&format!("Bearer {}", token.secret.reveal()))
}

/// `None` for what no header can hold.
fn header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
