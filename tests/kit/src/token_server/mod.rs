//! Issues bearer tokens that a real registry accepts, by both ways of Docker's protocol: `GET` with HTTP Basic or
//! nothing, and `POST` with a password or a refresh token.

mod rights;
mod sign;

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::http::{Body, Head};
use crate::server::Server;
use rights::Rights;
use sign::Signer;

const SERVICE: &str = "registry of a test";
const ISSUER: &str = "token server of a test";

/// Who may do what, and how the server answers.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    users: Vec<(String, String, Rights)>,
    anonymous: Rights,
    lifetime: Duration,
    has_post: bool,
    says_expiry: bool,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            anonymous: Rights::default(),
            lifetime: Duration::from_mins(5),
            has_post: true,
            says_expiry: true,
        }
    }
}

impl TokenOptions {
    /// Nobody may do anything; tokens last five minutes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A user with a password, and pairs of a repository and actions such as `pull,push`. The repository `*` is any.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, rights: &[(&str, &str)]) -> Self {
        self.users.push((name.to_owned(), password.to_owned(), Rights::new(rights)));
        self
    }

    /// What those may do who give no name.
    #[must_use]
    pub fn anonymous(self, rights: &[(&str, &str)]) -> Self {
        Self { anonymous: Rights::new(rights), ..self }
    }

    /// How long a token is good for, to the second: the registry refuses it afterwards.
    #[must_use]
    pub fn lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Answers 405 to `POST`, as many servers do.
    #[must_use]
    pub fn without_post(self) -> Self {
        Self { has_post: false, ..self }
    }

    /// Does not say how long a token is good for. The protocol's default is 60 seconds.
    #[must_use]
    pub fn without_expiry(self) -> Self {
        Self { says_expiry: false, ..self }
    }
}

/// A request for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// `GET` or `POST`.
    pub method: String,
    /// The parameters, of the query or the form, decoded and in order.
    pub parameters: Vec<(String, String)>,
    /// The `Authorization` field.
    pub authorization: Option<String>,
    /// The user that the server took the client for.
    pub user: Option<String>,
    /// The status that was answered.
    pub status: u16,
}

impl TokenRequest {
    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.parameters.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The scopes, however they were sent.
    pub fn scopes(&self) -> Vec<&str> {
        self.all("scope").iter().flat_map(|scope| scope.split(' ')).collect()
    }
}

/// The server, on a free port of 127.0.0.1 over plain HTTP. It ends when it is dropped.
#[derive(Debug)]
pub struct TokenServer {
    server: Server,
    shared: Arc<Shared>,
    dir: tempfile::TempDir,
}

#[derive(Debug)]
struct Shared {
    options: TokenOptions,
    signer: Signer,
    requests: Mutex<Vec<TokenRequest>>,
}

impl TokenServer {
    /// Starts a server with a key of its own.
    pub fn start(options: TokenOptions) -> Self {
        let (signer, certificate) = Signer::new(SERVICE, ISSUER);
        let dir = tempfile::Builder::new().prefix("layerstore-tokens-").tempdir().unwrap();
        std::fs::write(dir.path().join("tokens.crt"), certificate).unwrap();
        let shared = Arc::new(Shared { options, signer, requests: Mutex::default() });
        let of_server = Arc::clone(&shared);
        let server = Server::start(move |client, _| serve(&of_server, client));
        Self { server, shared, dir }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The address of the service, as challenges name it.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address())
    }

    /// The service that tokens are for.
    pub fn service(&self) -> &str {
        SERVICE
    }

    /// Who a registry must believe in.
    pub fn issuer(&self) -> &str {
        ISSUER
    }

    /// A PEM file with the certificate of the signing key.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("tokens.crt")
    }

    /// A token with these rights, without a request: pairs of a repository and actions.
    pub fn token(&self, rights: &[(&str, &str)]) -> String {
        let access = rights.iter().map(|(repository, actions)| {
            let actions: Vec<_> = actions.split(',').collect();
            json!({"type": "repository", "name": repository, "actions": actions})
        });
        let access: Vec<_> = access.collect();
        self.shared.signer.token("", &access, self.shared.options.lifetime)
    }

    /// The refresh token of a user, such as a `login` gets for a password and keeps.
    pub fn refresh_token(&self, user: &str) -> String {
        refresh_token(user)
    }

    /// All requests up to now.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.shared.requests.lock().unwrap().clone()
    }
}

fn refresh_token(user: &str) -> String {
    format!("refresh-token-of-{user}")
}

fn serve(shared: &Shared, client: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    while let Some(head) = Head::read(&mut reader)? {
        let mut form = String::new();
        let body = Body::new(&mut reader, head.body_of_request());
        body.take(64 * 1024).read_to_string(&mut form)?;
        let (method, target) = head.request();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let mut request = TokenRequest {
            method: method.to_owned(),
            parameters: parse(if method == "POST" { &form } else { query }),
            authorization: head.get("Authorization").map(str::to_owned),
            user: None,
            status: 0,
        };
        let answer = shared.answer(&mut request);
        request.status = answer.as_ref().map_or_else(|status| *status, |_| 200);
        let mut head = Head::answer(request.status);
        let body = answer.unwrap_or_else(|status| json!({"details": format!("status {status}")})).to_string();
        head.set("Content-Type", "application/json");
        head.set("Content-Length", body.len().to_string());
        // Before the answer, so that a client that has it finds its request here.
        shared.requests.lock().unwrap().push(request);
        let mut client = client;
        head.write(&mut client)?;
        client.write_all(body.as_bytes())?;
    }
    Ok(())
}

impl Shared {
    /// The document of an answer, or the status of a refusal.
    fn answer(&self, request: &mut TokenRequest) -> Result<Value, u16> {
        let is_post = request.method == "POST";
        if is_post && !self.options.has_post {
            return Err(405);
        }
        request.user = if is_post { self.user_of_form(request)? } else { self.user_of_header(request)? };
        let user = request.user.clone().unwrap_or_default();
        let known = self.options.users.iter().find(|(name, ..)| *name == user);
        let rights = known.map_or(&self.options.anonymous, |(.., rights)| rights);
        let access: Vec<_> = request.scopes().iter().filter_map(|scope| rights.grant(scope)).collect();
        let token = self.signer.token(&user, &access, self.options.lifetime);

        let mut answer = json!({"access_token": token});
        if !is_post {
            answer["token"] = token.into();
        }
        if self.options.says_expiry {
            answer["expires_in"] = self.options.lifetime.as_secs().into();
        }
        let wants_refresh =
            request.all("offline_token") == ["true"] || request.all("access_type") == ["offline"];
        if wants_refresh && request.user.is_some() {
            answer["refresh_token"] = refresh_token(&user).into();
        }
        Ok(answer)
    }

    fn user_of_header(&self, request: &TokenRequest) -> Result<Option<String>, u16> {
        let Some(authorization) = &request.authorization else { return Ok(None) };
        let login = authorization.strip_prefix("Basic ").and_then(|login| BASE64_STANDARD.decode(login).ok());
        let login = String::from_utf8(login.ok_or(401_u16)?).map_err(|_| 401_u16)?;
        let (name, password) = login.split_once(':').ok_or(401_u16)?;
        self.check(name, password).map(Some)
    }

    fn user_of_form(&self, request: &TokenRequest) -> Result<Option<String>, u16> {
        let one = |name| request.all(name).first().copied().unwrap_or_default();
        match one("grant_type") {
            "password" => self.check(one("username"), one("password")).map(Some),
            "refresh_token" => {
                let token = one("refresh_token");
                let user = self.options.users.iter().find(|(name, ..)| refresh_token(name) == token);
                user.map(|(name, ..)| Some(name.clone())).ok_or(401)
            }
            _ => Err(400),
        }
    }

    fn check(&self, name: &str, password: &str) -> Result<String, u16> {
        let user = self.options.users.iter().find(|(n, p, _)| n == name && p == password);
        user.map(|(name, ..)| name.clone()).ok_or(401)
    }
}

/// The pairs of a query or form.
fn parse(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

#[cfg(test)]
mod tests;
