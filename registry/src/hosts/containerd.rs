//! containerd's `hosts.toml`, as `core/remotes/docker/config/hosts.go` of containerd 2 reads it.
//!
//! Where this differs, it is on purpose:
//!
//! - a file that cannot be read as it should is an error. containerd logs it and goes on as if it were not there, past
//!   the mirrors and to the registry itself;
//! - `capabilities` at the top hold for the registry itself even if there is no `server`;
//! - a URL with a user, a query or a fragment is refused; containerd drops these;
//! - `dial_timeout` and `proxy` are not supported; like all fields that nobody knows they are logged and ignored.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::header::{HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::{Entry, HostsError, docker};
use crate::{Capabilities, limited};

const FILE: &str = "hosts.toml";

/// Far above any real file.
const LARGEST: u64 = 1 << 20;

/// The servers for the registry `name`, the registry itself last, from the first directory that has anything for it.
pub(super) fn entries(roots: &[PathBuf], name: &str) -> Result<Option<Vec<Entry>>, HostsError> {
    for root in roots {
        for directory in candidates(root, name) {
            match fs::metadata(&directory) {
                Ok(_) => return read(&directory).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(HostsError::Read { path: directory, source }),
            }
        }
    }
    Ok(None)
}

/// What the directory of a registry may be called: `host_port_`, which every file system can have, `host:port`, and
/// one for all others.
fn candidates(root: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let with_port = name.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = with_port.into_iter().chain([name.to_owned(), "_default".to_owned()]);
    names.map(|name| root.join(name))
}

fn read(directory: &Path) -> Result<Vec<Entry>, HostsError> {
    let path = directory.join(FILE);
    let content = match limited::read(&path, LARGEST) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(HostsError::Read { path, source }),
    };
    if content.is_empty() {
        let (authorities, identities) = docker::beside_no_file(directory)?;
        return Ok(vec![Entry { authorities, identities, ..Entry::default() }]);
    }
    let text = str::from_utf8(&content).map_err(|error| {
        let before = content.get(..error.valid_up_to()).unwrap_or_default();
        HostsError::Syntax { path: path.clone(), line: line_after(before), reason: "not UTF-8".to_owned() }
    })?;
    File { path: &path, directory, text }.entries()
}

fn line_after(before: &[u8]) -> usize {
    before.split(|&byte| byte == b'\n').count()
}

/// What is wrong, and at which byte.
struct Fault(usize, String);

type Value<'a> = Spanned<DeValue<'a>>;

fn fault<T>(value: &Value<'_>, reason: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(value.span().start, reason.into()))
}

/// A file that is being read.
struct File<'a> {
    path: &'a Path,
    directory: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn entries(&self) -> Result<Vec<Entry>, HostsError> {
        self.document().map_err(|Fault(offset, reason)| {
            let before = self.text.as_bytes().get(..offset).unwrap_or_default();
            HostsError::Syntax { path: self.path.to_owned(), line: line_after(before), reason }
        })
    }

    fn document(&self) -> Result<Vec<Entry>, Fault> {
        let document = DeTable::parse(self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            Fault(offset, error.message().replace('\n', ", "))
        })?;
        let document = document.get_ref();
        let mut entries = Vec::new();
        if let Some(hosts) = document.get("host") {
            let Some(hosts) = hosts.get_ref().as_table() else {
                return fault(hosts, "`host` must be tables of the form [host.\"https://example.com\"]");
            };
            for (url, fields) in hosts {
                let Some(table) = fields.get_ref().as_table() else {
                    return fault(fields, "a host must be a table");
                };
                entries.push(self.entry(Some((url.get_ref(), url.span().start)), table)?);
            }
        }
        let server = match document.get("server") {
            None => None,
            Some(value) => {
                Some((string(value, "server")?, value.span().start)).filter(|(url, _)| !url.is_empty())
            }
        };
        entries.push(self.entry(server, document)?);
        Ok(entries)
    }

    fn entry(&self, server: Option<(&str, usize)>, table: &DeTable<'_>) -> Result<Entry, Fault> {
        let mut entry = Entry::default();
        let mut override_path = false;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "capabilities" => entry.capabilities = capabilities(value)?,
                "ca" => entry.authorities = self.paths(value, "ca")?,
                "client" => entry.identities = self.identities(value)?,
                "skip_verify" => entry.skip_verify = Some(boolean(value, "skip_verify")?),
                "override_path" => override_path = boolean(value, "override_path")?,
                "header" => entry.headers = headers(value)?,
                "server" | "host" => {}
                unknown => tracing::warn!(
                    file = %self.path.display(),
                    line = line_after(self.text.as_bytes().get(..key.span().start).unwrap_or_default()),
                    "field {unknown:?} is not known and is ignored"
                ),
            }
        }
        if let Some((text, offset)) = server {
            let (base, plain_port) = base(text, override_path).map_err(|reason| Fault(offset, reason))?;
            let mut tls = base.clone();
            // Whether there is something about certificates decides this, not the scheme alone: containerd's rule.
            if entry.knows_tls() && base.scheme() == "http" && !plain_port && tls.set_scheme("https").is_ok()
            {
                entry.alternative = Some(base);
                entry.base = Some(tls);
            } else {
                entry.base = Some(base);
            }
        }
        Ok(entry)
    }

    fn path(&self, text: &str) -> PathBuf {
        self.directory.join(text)
    }

    fn paths(&self, value: &Value<'_>, key: &str) -> Result<Vec<PathBuf>, Fault> {
        Ok(strings(value, key)?.into_iter().map(|text| self.path(text)).collect())
    }

    fn identities(&self, value: &Value<'_>) -> Result<Vec<(PathBuf, Option<PathBuf>)>, Fault> {
        let expected = "`client` must be a path, an array of paths, or an array of pairs [certificate, key]";
        if let Some(path) = value.get_ref().as_str() {
            return Ok(vec![(self.path(path), None)]);
        }
        let Some(array) = value.get_ref().as_array() else { return fault(value, expected) };
        let mut identities = Vec::new();
        for item in array {
            match item.get_ref() {
                DeValue::String(path) => identities.push((self.path(path), None)),
                DeValue::Array(_) => match strings(item, "client")?[..] {
                    // The key is in the file of the certificate.
                    [certificate, ""] => identities.push((self.path(certificate), None)),
                    [certificate, key] => identities.push((self.path(certificate), Some(self.path(key)))),
                    _ => return fault(item, expected),
                },
                _ => return fault(item, expected),
            }
        }
        Ok(identities)
    }
}

/// The base of the API that a URL or `host:port` stands for, and whether it gives port 80.
fn base(text: &str, override_path: bool) -> Result<(Url, bool), String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let authority =
        with_scheme.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if authority.is_empty() {
        return Err("not a URL: no host".to_owned());
    }
    let mut url = Url::parse(&with_scheme).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme {:?} is neither http nor https", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with a user: credentials belong into the file of credentials".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a URL with a query or a fragment".to_owned());
    }
    let path = url.path().trim_matches('/');
    let path = if override_path || path == "v2" || path.ends_with("/v2") {
        path.to_owned()
    } else {
        format!("{path}/v2")
    };
    let path = path.trim_start_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    url.set_path(&format!("/{path}{slash}"));
    // `Url` forgets the port that belongs to the scheme.
    Ok((url, authority.ends_with(":80")))
}

fn string<'a>(value: &'a Value<'_>, key: &str) -> Result<&'a str, Fault> {
    value.get_ref().as_str().map_or_else(|| fault(value, format!("`{key}` must be a string")), Ok)
}

fn boolean(value: &Value<'_>, key: &str) -> Result<bool, Fault> {
    value.get_ref().as_bool().map_or_else(|| fault(value, format!("`{key}` must be true or false")), Ok)
}

fn strings<'a>(value: &'a Value<'_>, key: &str) -> Result<Vec<&'a str>, Fault> {
    let expected = || format!("`{key}` must be a string or an array of strings");
    match value.get_ref() {
        DeValue::String(text) => Ok(vec![text]),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map_or_else(|| fault(item, expected()), Ok))
            .collect(),
        _ => fault(value, expected()),
    }
}

fn capabilities(value: &Value<'_>) -> Result<Capabilities, Fault> {
    let Some(items) = value.get_ref().as_array() else {
        return fault(value, "`capabilities` must be an array of strings");
    };
    if items.is_empty() {
        return Ok(Capabilities::ALL);
    }
    let mut capabilities = Capabilities { pull: false, resolve: false, push: false };
    for item in items {
        match string(item, "capabilities")?.to_ascii_lowercase().as_str() {
            "pull" => capabilities.pull = true,
            "resolve" => capabilities.resolve = true,
            "push" => capabilities.push = true,
            other => return fault(item, format!("capability {other:?} is none of pull, resolve, push")),
        }
    }
    Ok(capabilities)
}

/// The values are never part of a message.
fn headers(value: &Value<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    let Some(table) = value.get_ref().as_table() else { return fault(value, "`header` must be a table") };
    let mut headers = Vec::new();
    for (key, value) in table {
        let Ok(name) = HeaderName::from_bytes(key.get_ref().as_bytes()) else {
            return fault(value, format!("{:?} is not the name of a header", key.get_ref()));
        };
        for text in strings(value, "header")? {
            let Ok(mut content) = HeaderValue::from_str(text) else {
                return fault(
                    value,
                    format!("the value of header {name} has characters that no header may have"),
                );
            };
            content.set_sensitive(true);
            headers.push((name.clone(), content));
        }
    }
    Ok(headers)
}
