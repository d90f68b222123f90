//! How a registry is set up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::authority::{Authority, Identity};
use crate::token_server::TokenServer;

/// What a registry is to be. By default anyone may read and write over plain HTTP, and delete.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    pub(super) tls: Option<Tls>,
    authority: Authority,
    auth: Auth,
    upstream: Option<String>,
    no_delete: bool,
    relative_urls: bool,
}

/// How a registry with TLS deals with its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Anyone may connect who trusts the authority.
    Server,
    /// Only those with a certificate of the same authority.
    Mutual,
}

#[derive(Clone, Debug, Default)]
enum Auth {
    #[default]
    None,
    Basic(Vec<(String, String)>),
    Token {
        realm: String,
        service: String,
        issuer: String,
        bundle: PathBuf,
    },
}

impl RegistryOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// With TLS, by an authority of its own, for `127.0.0.1` and `localhost`.
    #[must_use]
    pub fn tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// With TLS, by an authority that others have too.
    #[must_use]
    pub fn tls_of(self, authority: &Authority, tls: Tls) -> Self {
        Self { tls: Some(tls), authority: authority.clone(), ..self }
    }

    /// Asks for this user's password (HTTP Basic). May be called again for more users.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        let user = (name.to_owned(), password.to_owned());
        match &mut self.auth {
            Auth::Basic(users) => users.push(user),
            auth => *auth = Auth::Basic(vec![user]),
        }
        self
    }

    /// Asks for tokens of `server`.
    #[must_use]
    pub fn tokens(self, server: &TokenServer) -> Self {
        self.tokens_from(server, &server.realm())
    }

    /// The same, but names `realm` as the place where tokens are to be had, such as that of a fault proxy.
    #[must_use]
    pub fn tokens_from(self, server: &TokenServer, realm: &str) -> Self {
        let auth = Auth::Token {
            realm: realm.to_owned(),
            service: server.service().to_owned(),
            issuer: server.issuer().to_owned(),
            bundle: server.certificate(),
        };
        Self { auth, ..self }
    }

    /// A pull-through cache of the registry at `upstream`, which is a URL. It takes no pushes.
    #[must_use]
    pub fn mirror_of(self, upstream: &str) -> Self {
        Self { upstream: Some(upstream.to_owned()), ..self }
    }

    /// Deletes nothing when asked to.
    #[must_use]
    pub fn without_delete(self) -> Self {
        Self { no_delete: true, ..self }
    }

    /// Sends `Location` fields without scheme and host.
    #[must_use]
    pub fn relative_urls(self) -> Self {
        Self { relative_urls: true, ..self }
    }

    /// Whether anyone can push to it over plain HTTP.
    pub(super) fn is_open(&self) -> bool {
        self.tls.is_none() && matches!(self.auth, Auth::None)
    }

    pub(super) fn is_mirror(&self) -> bool {
        self.upstream.is_some()
    }

    /// The configuration of a registry that has what is in `dir`; writes the files that it names.
    pub(super) fn config(&self, dir: &Path) -> Value {
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": dir.join("storage")},
                "delete": {"enabled": !self.no_delete},
                // No goroutine wakes in the middle of a test.
                "maintenance": {"uploadpurging": {"enabled": false}},
            },
            "http": {"addr": "127.0.0.1:0", "secret": "of a test", "relativeurls": self.relative_urls},
        });
        if let Some(tls) = self.tls {
            let files = dir.join("tls");
            if !files.exists() {
                write_identities(&files, &self.authority);
            }
            config["http"]["tls"] = json!({
                "certificate": files.join("server.crt"),
                "key": files.join("server.key"),
            });
            if tls == Tls::Mutual {
                config["http"]["tls"]["clientcas"] = json!([files.join("ca.crt")]);
            }
        }
        match &self.auth {
            Auth::None => {}
            Auth::Basic(users) => {
                let path = dir.join("htpasswd");
                let lines = users.iter().map(|(name, password)| format!("{name}:{}\n", bcrypt(password)));
                fs::write(&path, lines.collect::<String>()).unwrap();
                config["auth"] = json!({"htpasswd": {"realm": "tests", "path": path}});
            }
            Auth::Token { realm, service, issuer, bundle } => {
                config["auth"] = json!({"token": {
                    "realm": realm,
                    "service": service,
                    "issuer": issuer,
                    "rootcertbundle": bundle,
                }});
            }
        }
        if let Some(upstream) = &self.upstream {
            config["proxy"] = json!({"remoteurl": upstream});
        }
        config
    }

    /// Writes what [`super::Registry::certs_d`] promises.
    pub(super) fn write_certificates(&self, dir: &Path, port: u16) {
        for host in ["127.0.0.1", "localhost"] {
            let to = dir.join(format!("certs.d/{host}:{port}"));
            fs::create_dir_all(&to).unwrap();
            let names: &[_] = match self.tls {
                None => &[],
                Some(Tls::Server) => &["ca.crt"],
                Some(Tls::Mutual) => &["ca.crt", "client.cert", "client.key"],
            };
            for name in names {
                fs::copy(dir.join("tls").join(name), to.join(name)).unwrap();
            }
        }
    }
}

/// An authority, and a server and a client that it signs, as PEM files.
fn write_identities(dir: &Path, authority: &Authority) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("ca.crt"), authority.pem()).unwrap();
    for (file, Identity { certificate, key }) in
        [("server.crt", authority.server()), ("client.cert", authority.client())]
    {
        fs::write(dir.join(file), certificate.pem()).unwrap();
        fs::write(dir.join(file).with_extension("key"), key.serialize_pem()).unwrap();
    }
}

/// The registry takes no other hash. Perl is part of every Debian system, and its `crypt` is that of the system,
/// which knows bcrypt.
fn bcrypt(password: &str) -> String {
    // The least cost and a fixed salt: these protect nothing.
    let script = "print crypt($ARGV[0], '$2b$04$abcdefghijklmnopqrstuu')";
    let out = Command::new("perl").args(["-e", script, password]).output().expect("perl runs");
    let hash = String::from_utf8(out.stdout).unwrap();
    assert!(hash.starts_with("$2b$04$"), "perl's crypt knows no bcrypt: {hash:?}");
    hash
}
