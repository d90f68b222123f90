//! One request: authorised, redirected, tried again, and its refusal put into words.

use std::io::Read as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::blocking::{Body, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::auth::Scope;
use crate::authorize::Request;
use crate::client::Repository;
use crate::error::{Error, Problem, Result};
use crate::host::Host;
use crate::retry::retry_after;
use crate::transport::is_other_scheme;
use crate::watch::{Notice, pause};

/// Redirects that are followed in a row: as many as Go's client does.
const MAX_REDIRECTS: usize = 10;
/// What is read of the explanation of a refusal.
const MAX_REFUSAL_BYTES: u64 = 64 << 10;
/// What is shown of it.
const MAX_DETAIL_CHARS: usize = 300;

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Below the repository: `manifests/latest`.
    Path(String),
    /// `/v2/` itself.
    Base,
    /// Where the host itself sent us: an upload, the next page.
    Url(Url),
}

/// Makes the body anew for each attempt, and tells its length.
pub(crate) type MakeBody<'a> = dyn Fn() -> std::io::Result<(Body, u64)> + 'a;

/// A request that may be sent more than once.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) query: Vec<(&'a str, String)>,
    pub(crate) headers: HeaderMap,
    /// What the repository is asked for.
    pub(crate) push: bool,
    /// A repository that content is to be mounted from.
    pub(crate) mount_from: Option<&'a str>,
    pub(crate) body: Option<&'a MakeBody<'a>>,
    /// Whether it is there to find out if a credential is accepted.
    pub(crate) login: bool,
    /// What messages call it.
    pub(crate) what: String,
}

impl Call<'_> {
    pub(crate) fn new(method: Method, target: Target, what: impl Into<String>) -> Self {
        Self {
            method,
            target,
            query: Vec::new(),
            headers: HeaderMap::new(),
            push: false,
            mount_from: None,
            body: None,
            login: false,
            what: what.into(),
        }
    }

    pub(crate) fn get(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Method::GET, Target::Path(path.into()), what)
    }
}

impl Repository<'_> {
    /// Sends until there is an answer, at most `attempts` times.
    pub(crate) fn send_patiently(&self, host: &Host, call: &Call<'_>, attempts: u32) -> Result<Response> {
        self.patiently(attempts, || self.send(host, call))
    }

    /// Does something that may be done more than once until it succeeds, at most `attempts` times.
    pub(crate) fn patiently<T>(&self, attempts: u32, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut failures = 0;
        loop {
            let error = match attempt() {
                Err(error) if error.is_transient() => error,
                done => return done,
            };
            failures += 1;
            if failures >= attempts || !self.wait_after(&error, failures)? {
                return Err(error);
            }
        }
    }

    /// Waits before the next attempt; `false` if the server asks for more time than anybody waits.
    pub(crate) fn wait_after(&self, error: &Error, failures: u32) -> Result<bool> {
        let retry = &self.shared.retry;
        let wait = error.wait().unwrap_or_else(|| retry.wait(failures));
        if wait > retry.longest_wait {
            return Ok(false);
        }
        self.watch.notice(Notice::Retry { reason: error.in_full(), wait });
        if pause(self.watch, wait) { Ok(true) } else { Err(Error::Stopped) }
    }

    /// Sends once, and once more with what the host wants to see. Success statuses only.
    pub(crate) fn send(&self, host: &Host, call: &Call<'_>) -> Result<Response> {
        let (response, authorization) = self.send_raw(host, call)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(host, call, response, authorization.as_ref()))
    }

    /// The same, with whatever status there is.
    pub(crate) fn send_raw(&self, host: &Host, call: &Call<'_>) -> Result<(Response, Option<HeaderValue>)> {
        let base = self.shared.base(host);
        let first = self.send_to(host, &base, call);
        let other = match &first {
            // A server of TLS may say so with a status, in clear text.
            Ok((response, _)) => base.scheme() == "http" && response.status() == StatusCode::BAD_REQUEST,
            Err(Error::Unreachable { other_scheme, .. }) => *other_scheme,
            Err(_) => false,
        };
        if other && let Some(base) = self.shared.other_base(host) {
            return match self.send_to(host, base, call) {
                // It is no better there.
                Err(Error::Unreachable { .. }) => first,
                done => {
                    self.shared.settle(host, base);
                    done
                }
            };
        }
        if first.is_ok() && !other {
            self.shared.settle(host, &base);
        }
        first
    }

    /// Sends to the API at `base`.
    fn send_to(&self, host: &Host, base: &Url, call: &Call<'_>) -> Result<(Response, Option<HeaderValue>)> {
        let scopes = self.scopes(call);
        let authorizer = &self.shared.authorizer;
        let request = Request {
            host,
            repository: &self.path,
            scopes: &scopes,
            http: &self.shared.transport.client(&host.tls, false)?,
            plain_http: base.scheme() == "http",
            login: call.login,
            name: self.credentials_name(host),
        };
        let authorization = authorizer.known(&request)?;
        let response = self.follow(host, base, call, authorization.as_ref())?;
        // Where a redirect leads, nobody may say whom the registry's credentials are to be shown to.
        let own = response.url().origin() == base.origin();
        if response.status() != StatusCode::UNAUTHORIZED || !own {
            return Ok((response, authorization));
        }
        let answer = authorizer.answer(&request, response.headers(), authorization.as_ref())?;
        let Some(answer) = answer else { return Ok((response, authorization)) };
        drop(response);
        let response = self.follow(host, base, call, Some(&answer))?;
        Ok((response, Some(answer)))
    }

    /// What the credentials for a host are looked up by: a registry's name as the user wrote it, which may have a port
    /// that no URL keeps.
    fn credentials_name(&self, host: &Host) -> String {
        if host.namespace.is_none() { self.domain.clone() } else { host.authority() }
    }

    fn scopes(&self, call: &Call<'_>) -> Vec<Scope> {
        if self.path.is_empty() {
            return Vec::new();
        }
        let scope = if call.push { Scope::push(&self.path) } else { Scope::pull(&self.path) };
        let mut scopes = vec![scope];
        scopes.extend(call.mount_from.map(Scope::pull));
        scopes
    }

    fn url(&self, host: &Host, base: &Url, call: &Call<'_>) -> Result<Url> {
        let path = match &call.target {
            Target::Url(url) => return Ok(url.clone()),
            Target::Base => String::new(),
            Target::Path(path) => format!("{}/{path}", self.path),
        };
        let mut url = base.join(&path).map_err(|error| Error::Protocol {
            host: host.authority(),
            what: call.what.clone(),
            reason: format!("no address can be made of `{path}` ({error})"),
        })?;
        for (name, value) in &call.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        if let Some(namespace) = &host.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    /// Sends, and follows redirects. Other servers than the host itself see neither credentials nor configured
    /// headers nor a client's certificate, and nobody is led from TLS to plain HTTP.
    fn follow(
        &self,
        host: &Host,
        base: &Url,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response> {
        let mut url = self.url(host, base, call)?;
        let refused = |reason| Error::Redirect { host: host.authority(), what: call.what.clone(), reason };
        if base.scheme() == "https" && url.scheme() != "https" {
            return Err(refused("plain HTTP after TLS is not accepted"));
        }
        let mut own = true;
        for _ in 0..=MAX_REDIRECTS {
            // Another host could lead back with a path of its choice, so what has been dropped stays so.
            own = own && url.origin() == base.origin();
            let http = self.shared.transport.client(&host.tls, own)?;
            let mut request = http.request(call.method.clone(), url.clone()).headers(call.headers.clone());
            if own {
                let mut headers: HeaderMap = host.headers.iter().cloned().collect();
                if let Some(authorization) = authorization {
                    headers.insert(AUTHORIZATION, authorization.clone());
                }
                request = request.headers(headers);
            }
            if let Some(body) = call.body {
                let (body, length) =
                    body().map_err(|source| Error::Source { what: call.what.clone(), source })?;
                request = request.body(body).timeout(self.shared.transport.upload_timeout(length));
            }
            let response = request.send().map_err(|error| unreachable(&url, own, error))?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            if call.method != Method::GET && call.method != Method::HEAD {
                return Err(refused("only reading is redirected"));
            }
            let next = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let mut next =
                next.and_then(|to| url.join(to).ok()).ok_or_else(|| refused("it does not say where to"))?;
            match (url.scheme(), next.scheme()) {
                (_, "https") | ("http", "http") => {}
                ("https", "http") => return Err(refused("plain HTTP after TLS is not accepted")),
                _ => return Err(refused("it is neither HTTP nor HTTPS")),
            }
            // What a server puts there are not our credentials.
            let _ = next.set_username("").and_then(|()| next.set_password(None));
            url = next;
        }
        Err(refused("there are too many redirects"))
    }

    /// Why there is no success.
    pub(crate) fn refusal(
        &self,
        from: &Host,
        call: &Call<'_>,
        response: Response,
        authorization: Option<&HeaderValue>,
    ) -> Error {
        let status = response.status();
        let wait = retry_after(response.headers());
        let is_registry = response.headers().contains_key("docker-distribution-api-version");
        let has_body = call.method != Method::HEAD;
        let html = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/html"));
        let mut body = Vec::new();
        // An explanation that breaks off is as good as none.
        drop(self.paced(response).take(MAX_REFUSAL_BYTES).read_to_end(&mut body));
        let errors = serde_json::from_slice::<Errors>(&body).unwrap_or_default();
        let explained = !errors.errors.is_empty();
        let detail = errors.text().filter(|detail| !reflects(detail, from, authorization));
        let (host, repository, what) = (from.authority(), self.path.clone(), call.what.clone());
        let sent = authorization.is_some()
            && self.shared.authorizer.has_credentials(&self.credentials_name(from), &repository);
        match status {
            StatusCode::UNAUTHORIZED => Error::Unauthorized { host, repository, sent, detail },
            StatusCode::FORBIDDEN => Error::Denied { host, repository, sent, detail },
            StatusCode::NOT_FOUND if has_body && !explained && !is_registry => {
                let detail = if html { "404 and a web page" } else { "404 without a reason" };
                Error::NotARegistry { host, detail: Some(detail.to_owned()) }
            }
            StatusCode::NOT_FOUND => Error::NotFound { host, repository, what, detail },
            StatusCode::TOO_MANY_REQUESTS => Error::TooManyRequests { host, wait, detail },
            status => Error::Status { host, what, status, wait, detail },
        }
    }
}

/// A registry may echo what it got.
fn reflects(detail: &str, host: &Host, authorization: Option<&HeaderValue>) -> bool {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    let configured =
        host.headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(_, value)| text(value));
    let mut words = configured.flat_map(|value| {
        let last = value.rsplit(' ').next().unwrap_or_default().to_owned();
        [value, last]
    });
    if words.any(|word| !word.is_empty() && detail.contains(&word)) {
        return true;
    }
    let Some(sent) = authorization.and_then(|value| value.to_str().ok()) else { return false };
    let secret = sent.split_once(' ').map_or(sent, |(_, secret)| secret);
    let password = BASE64_STANDARD.decode(secret).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let password = password.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, password)| password);
    detail.contains(secret) || password.is_some_and(|password| detail.contains(password))
}

fn unreachable(url: &Url, own: bool, error: reqwest::Error) -> Error {
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let problem = Problem::of(&error);
    // Needs the URL. What a redirect led to says nothing about the registry.
    let other_scheme = own && is_other_scheme(&error);
    let detail = problem.detail(&error.without_url());
    Error::Unreachable { host, problem, other_scheme, detail }
}

/// The body of a refusal (OCI distribution spec, "Error Codes").
#[derive(Debug, Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<OneError>,
}

#[derive(Debug, Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Errors {
    fn text(&self) -> Option<String> {
        let first = self.errors.first()?;
        let text = if first.message.is_empty() { &first.code } else { &first.message };
        let text: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_DETAIL_CHARS).collect();
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}
