//! Tokens, and how they are asked for.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use url::{Url, form_urlencoded};

use super::answer;
use super::{AuthError, BearerChallenge, Scope, authority};
use crate::{Credential, Secret};

/// A token that is about to run out is not used: the request might take that long to arrive.
const MARGIN: Duration = Duration::from_secs(10);
/// As many as make sense for a request that is one step itself.
const MAX_REDIRECTS: usize = 5;
/// For one request with its answer.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// What token servers write into their records.
const CLIENT_ID: &str = "layerstore";

/// What a token is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Requests.
    Access,
    /// To find out whether the credential is good, and to have an identity token in its place, if the server gives one
    /// (`offline_token`).
    Login,
}

/// A token for a registry.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// What to send, after `Bearer `. It holds only visible ASCII characters.
    pub(crate) secret: Secret,
    /// When the registry stops to accept it, by our clock.
    pub(crate) expires: Instant,
    /// A refresh token, if the server gave one.
    pub(crate) refresh: Option<Secret>,
}

impl Token {
    /// Whether it can be used for a request that is sent now.
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() + MARGIN < self.expires
    }
}

/// Gets a token for these scopes from the token server that a challenge names.
///
/// Without scopes, the one of the challenge is asked for, if it has one, but not for a login: what some registries
/// write there is an example. A [`Credential::RegistryToken`] is the token
/// itself. An identity token is exchanged with `POST`; where the server knows no `POST` there (404), it is sent as the
/// password of a user without a name, as containerd does for registries of Google and others. All else is a `GET`,
/// with a name and a password if there are some.
///
/// The challenge has to come from the registry that the credential is for: where it says to send it, it is sent.
/// Only `registry_is_plain_http` allows that to be a URL with `http`, since then all is in the clear anyway.
///
/// `http` must not follow redirects by itself.
pub(crate) fn fetch_token(
    http: &Client,
    challenge: &BearerChallenge,
    scopes: &[Scope],
    credential: Option<&Credential>,
    registry_is_plain_http: bool,
    purpose: Purpose,
) -> Result<Token, AuthError> {
    let mut realm =
        Url::parse(&challenge.realm).map_err(|_| AuthError::Realm { reason: "its realm is no URL" })?;
    if !matches!(realm.scheme(), "http" | "https") || !realm.has_host() {
        return Err(AuthError::Realm { reason: "its realm is no HTTP URL" });
    }
    // Whatever user the registry writes into the URL, it is not ours.
    if realm.set_username("").is_err() || realm.set_password(None).is_err() {
        return Err(AuthError::Realm { reason: "its realm is no HTTP URL" });
    }
    realm.set_fragment(None);
    let server = authority(&realm);
    if realm.scheme() == "http" && !registry_is_plain_http {
        return Err(AuthError::PlainHttp { server });
    }
    let scopes = match (scopes, &challenge.scope) {
        ([], Some(scope)) if purpose == Purpose::Access => {
            scope.split_ascii_whitespace().map(str::to_owned).collect()
        }
        _ => Scope::merge(scopes).iter().map(ToString::to_string).collect(),
    };
    let service = challenge.service.as_deref().filter(|service| !service.is_empty());
    tracing::debug!(%server, ?scopes, with_credentials = credential.is_some(), "asking for a token");
    let request =
        Request { http, realm, server, plain_http: registry_is_plain_http, scopes, service, purpose };
    match credential {
        None => request.get(None),
        Some(Credential::Basic { username, password }) => request.get(Some((username, password))),
        Some(Credential::IdentityToken(token)) => match request.post(token) {
            Err(AuthError::Status { status: StatusCode::NOT_FOUND, .. }) => request.get(Some(("", token))),
            result => result,
        },
        Some(Credential::RegistryToken(token)) => {
            Ok(Token { secret: token.clone(), expires: Instant::now() + answer::LONGEST, refresh: None })
        }
    }
}

struct Request<'a> {
    http: &'a Client,
    realm: Url,
    server: String,
    plain_http: bool,
    scopes: Vec<String>,
    service: Option<&'a str>,
    purpose: Purpose,
}

/// What is sent along with a request.
enum Proof<'a> {
    Nothing,
    Basic(&'a str, &'a Secret),
    Form(Secret),
}

impl Request<'_> {
    fn get(&self, user: Option<(&str, &Secret)>) -> Result<Token, AuthError> {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = self.service {
                query.append_pair("service", service);
            }
            for scope in &self.scopes {
                query.append_pair("scope", scope);
            }
            if self.purpose == Purpose::Login {
                query.append_pair("offline_token", "true").append_pair("client_id", CLIENT_ID);
            }
            if let Some((name, _)) = user.filter(|(name, _)| !name.is_empty()) {
                query.append_pair("account", name);
            }
        }
        match user {
            None => self.fetch(url, &Proof::Nothing, &[]),
            Some((name, password)) => {
                let encoded = STANDARD.encode(format!("{name}:{}", password.reveal()));
                self.fetch(url, &Proof::Basic(name, password), &[password.clone(), encoded.into()])
            }
        }
    }

    fn post(&self, token: &Secret) -> Result<Token, AuthError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token");
        if let Some(service) = self.service {
            form.append_pair("service", service);
        }
        form.append_pair("client_id", CLIENT_ID);
        if !self.scopes.is_empty() {
            form.append_pair("scope", &self.scopes.join(" "));
        }
        form.append_pair("refresh_token", token.reveal());
        let encoded: String = form_urlencoded::byte_serialize(token.reveal().as_bytes()).collect();
        let secrets = [token.clone(), encoded.into()];
        self.fetch(self.realm.clone(), &Proof::Form(form.finish().into()), &secrets)
    }

    fn fetch(&self, url: Url, proof: &Proof<'_>, secrets: &[Secret]) -> Result<Token, AuthError> {
        let asked = Instant::now();
        let (response, with_credentials) = self.follow(url, proof)?;
        let status = response.status();
        let retry_after = answer::retry_after(response.headers());
        let body = answer::body(&self.server, response);
        if status.is_success() {
            return answer::token(&self.server, &body?, asked);
        }
        // The status says enough if its explanation cannot be read.
        let body = body.unwrap_or_default();
        let server = self.server.clone();
        let message = answer::message(&body, secrets);
        // A refresh token that has run out is a request that is not valid, as OAuth2 sees it.
        let stale = status == StatusCode::BAD_REQUEST
            && matches!(proof, Proof::Form(_))
            && answer::oauth_error(&body).as_deref() == Some("invalid_grant");
        if stale || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(AuthError::Refused { server, with_credentials, message });
        }
        Err(AuthError::Status { server, status, retry_after, message })
    }

    /// Sends a request, and follows where the server leads. Credentials go to the token server itself and to nobody
    /// else. Returns the answer, and whether credentials went with the last request.
    fn follow(&self, mut url: Url, proof: &Proof<'_>) -> Result<(Response, bool), AuthError> {
        let redirect = |reason| AuthError::Redirect { server: self.server.clone(), reason };
        let mut trusted = true;
        for _ in 0..=MAX_REDIRECTS {
            // Another host could lead back with a path of its choice, so what has been dropped stays so.
            trusted = trusted && is_same_server(&self.realm, &url);
            let response = self.send(url.clone(), if trusted { proof } else { &Proof::Nothing })?;
            if !is_redirect(response.status()) {
                return Ok((response, trusted && !matches!(proof, Proof::Nothing)));
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next.ok_or_else(|| redirect("it names no URL"))?;
            url = self.checked(url, proof)?;
        }
        Err(redirect("there are too many in a row"))
    }

    /// A URL that a redirect leads to, if a request with this proof may go there.
    fn checked(&self, mut url: Url, proof: &Proof<'_>) -> Result<Url, AuthError> {
        let redirect = |reason| AuthError::Redirect { server: self.server.clone(), reason };
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(redirect("it is no HTTP URL"));
        }
        if url.scheme() == "http" && (self.realm.scheme() == "https" || !self.plain_http) {
            return Err(AuthError::PlainHttp { server: authority(&url) });
        }
        // The client would make an `Authorization` header of it.
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(redirect("it is no HTTP URL"));
        }
        // Without its form, the request would mean nothing, and the form is the secret.
        if matches!(proof, Proof::Form(_)) && !is_same_server(&self.realm, &url) {
            return Err(redirect("an identity token is not sent to another host"));
        }
        Ok(url)
    }

    fn send(&self, url: Url, proof: &Proof<'_>) -> Result<Response, AuthError> {
        let server = authority(&url);
        let request = match proof {
            Proof::Nothing => self.http.get(url),
            Proof::Basic(name, password) => self.http.get(url).basic_auth(name, Some(password.reveal())),
            Proof::Form(form) => self
                .http
                .post(url)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.reveal().to_owned()),
        };
        request
            .header(ACCEPT, "application/json")
            .timeout(TIME_LIMIT)
            .send()
            .map_err(|error| AuthError::Unreachable { server, source: Box::new(error.without_url()) })
    }
}

/// Whether two URLs lead to the same server; a step from `http` to `https` on the usual ports does.
fn is_same_server(from: &Url, to: &Url) -> bool {
    let upgraded =
        from.scheme() == "http" && to.scheme() == "https" && from.port().is_none() && to.port().is_none();
    from.host() == to.host()
        && (upgraded
            || (from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default()))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
