//! The names that files and helpers know a registry by.

use super::CredentialError;

/// The name that `docker login` keeps the credentials of Docker Hub under: the address of a service of 2013.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The name of Docker Hub in references to images, which podman keeps its credentials under.
const HUB: &str = "docker.io";

/// The registry that credentials are wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// `host` or `host:port` in lower case; `docker.io` for Docker Hub.
    host: String,
}

impl Server {
    /// A registry by any of its spellings.
    pub(super) fn new(text: &str) -> Result<Self, CredentialError> {
        let host = host_of(text).ok_or(CredentialError::Host)?;
        // A helper reads the name as a line.
        if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '@') {
            return Err(CredentialError::Host);
        }
        Ok(Self { host: canonical(host) })
    }

    /// What its credentials are stored under, in files and helpers.
    pub(super) fn key(&self) -> &str {
        if self.host == HUB { HUB_KEY } else { &self.host }
    }

    /// Whether a key of a file names this registry as a whole.
    pub(super) fn is_named_by(&self, key: &str) -> bool {
        host_of(key).is_some_and(|host| canonical(host) == self.host)
    }

    /// The keys of a repository and the namespaces it is in, the longest first, without the registry as a whole.
    pub(super) fn namespaces(&self, repository: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut rest = repository.trim_matches('/');
        while !rest.is_empty() {
            keys.push(format!("{}/{rest}", self.host));
            rest = rest.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        keys
    }
}

/// The host that a key names as a whole; `None` for a namespace on a host.
///
/// After a scheme, the path does not count: Docker and podman both take `https://host/v1/` for the host. Without one,
/// Docker ignores the path and podman takes it for a namespace; we do as podman does, save for the paths of the API.
fn host_of(key: &str) -> Option<&str> {
    let stripped = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = stripped.unwrap_or(key).split_once('/').unwrap_or((stripped.unwrap_or(key), ""));
    let whole = stripped.is_some() || matches!(path.trim_end_matches('/'), "" | "v1" | "v2");
    whole.then_some(host)
}

/// The name that a registry's credentials go by, from any of its spellings: `docker.io`, `quay.io`, `localhost:5000`
/// from `https://index.docker.io/v1/`, `Quay.io/`, `http://localhost:5000`.
pub fn registry_name(text: &str) -> Result<String, CredentialError> {
    Server::new(text).map(|server| server.host)
}

fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_has_one_key() {
        for name in ["docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"] {
            let server = Server::new(name).unwrap();
            assert_eq!(server.key(), "https://index.docker.io/v1/");
            for key in
                ["docker.io", "https://index.docker.io/v1/", "index.docker.io/v1/", "https://docker.io"]
            {
                assert!(server.is_named_by(key), "{key}");
            }
        }
    }

    #[test]
    fn a_host_is_named_by_each_old_spelling_and_no_namespace() {
        let server = Server::new("Reg.Example.com:5000").unwrap();
        assert_eq!(server.key(), "reg.example.com:5000");
        for key in [
            "reg.example.com:5000",
            "REG.example.com:5000/",
            "https://reg.example.com:5000",
            "http://reg.example.com:5000/v1/",
        ] {
            assert!(server.is_named_by(key), "{key}");
        }
        for key in [
            "reg.example.com",
            "reg.example.com:5000/team",
            "https://reg.example.com",
            "",
            "https://",
            "evil.reg.example.com:5000",
        ] {
            assert!(!server.is_named_by(key), "{key}");
        }
    }

    #[test]
    fn namespaces_run_from_the_repository_to_its_first_part() {
        let server = Server::new("docker.io").unwrap();
        assert_eq!(server.namespaces("a/b/c"), ["docker.io/a/b/c", "docker.io/a/b", "docker.io/a"]);
        assert_eq!(server.namespaces(""), [""; 0]);
    }

    #[test]
    fn text_that_is_no_host_is_refused() {
        for text in ["", "https://", "a b", "a\nb", "user@host", "host/namespace"] {
            assert!(matches!(Server::new(text), Err(CredentialError::Host)), "{text:?}");
        }
    }
}
