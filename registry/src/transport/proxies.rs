//! Which proxy a request goes through, by the rules of the environment variables as Go's programs read them
//! (`golang.org/x/net/http/httpproxy`), and with them Docker, containerd and Podman.

use std::fmt;
use std::net::IpAddr;

use url::Url;

use super::TransportError;
use crate::network::{self, Network};

/// Proxies, as environment variables name them. Nothing here reads these variables: the caller does.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http` URLs (`HTTP_PROXY`): `http://`, `https://`, `socks5://` or `socks5h://` (with both the proxy looks
    /// names up), with `user:password@` if need be; without a scheme it is `http`.
    pub http: Option<String>,
    /// For `https` URLs (`HTTPS_PROXY`).
    pub https: Option<String>,
    /// For both, where there is none for one (`ALL_PROXY`).
    pub all: Option<String>,
    /// What is reached without a proxy (`NO_PROXY`), separated by commas: names, which include the names below them;
    /// `.name` and `*.name`, for only these; addresses; networks such as `10.0.0.0/8`; `*` for all. A name or address
    /// may have a port. This machine is always reached without one. Names are not looked up.
    pub no_proxy: Option<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.as_deref().map(without_user);
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("all", &shown(&self.all))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

impl Proxies {
    /// What they say, or `None` if they name no proxy.
    pub(super) fn rules(&self) -> Result<Option<Rules>, TransportError> {
        let all = parse("ALL_PROXY", self.all.as_deref())?;
        let http = parse("HTTP_PROXY", self.http.as_deref())?.or_else(|| all.clone());
        let https = parse("HTTPS_PROXY", self.https.as_deref())?.or(all);
        if http.is_none() && https.is_none() {
            return Ok(None);
        }
        let exceptions =
            self.no_proxy.as_deref().unwrap_or_default().split(',').filter_map(Exception::parse).collect();
        Ok(Some(Rules { http, https, exceptions }))
    }
}

/// Far above any real setting.
const LONGEST: usize = 4096;

/// The text of a proxy without the user and password, whatever its form.
fn without_user(value: &str) -> String {
    let Some((before, host)) = value.rsplit_once('@') else { return value.to_owned() };
    let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
    if scheme.is_empty() { format!("…@{host}") } else { format!("{scheme}://…@{host}") }
}

fn parse(variable: &'static str, value: Option<&str>) -> Result<Option<Url>, TransportError> {
    let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else { return Ok(None) };
    let refused = |reason: &str| TransportError::Proxy {
        variable,
        value: without_user(value),
        reason: reason.to_owned(),
    };
    let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let mut url = Url::parse(&text).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h") {
        return Err(refused("the scheme of a proxy must be http, https, socks5 or socks5h"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    // `reqwest` has a stricter type for URLs, and passes a proxy over that does not fit into it.
    if !url.host_str().is_some_and(|host| !host.is_empty() && host.bytes().all(plain)) {
        return Err(refused("a proxy needs the name or address of a host"));
    }
    if value.len() > LONGEST {
        return Err(TransportError::Proxy {
            variable, value: "…".to_owned(), reason: "too long".to_owned()
        });
    }
    if url.scheme().starts_with("socks") {
        // To Go both mean that the proxy looks the name up; to `reqwest` only the second does.
        let _ = url.set_scheme("socks5h");
        let _ = url.set_port(Some(url.port().unwrap_or(1080)));
    }
    Ok(Some(url))
}

/// What [`Proxies`] say, in a form that can be asked.
pub(super) struct Rules {
    http: Option<Url>,
    https: Option<Url>,
    exceptions: Vec<Exception>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &Option<Url>| url.as_ref().map(|url| without_user(url.as_str()));
        f.debug_struct("Rules")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

impl Rules {
    /// The proxy for requests to a URL.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<Url> {
        let proxy = if url.scheme() == "https" { self.https.as_ref() } else { self.http.as_ref() }?;
        if network::is_loopback(url) || self.exceptions.iter().any(|exception| exception.fits(url)) {
            return None;
        }
        Some(proxy.clone())
    }
}

/// One item of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Network(Network),
    Address(IpAddr, Option<u16>),
    /// Hosts whose name ends in `suffix`, which begins with a dot; with `itself` also the one that it is below.
    Name {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Exception {
    /// `None` for what is none: it is passed over, as Go does.
    fn parse(item: &str) -> Option<Self> {
        let item = item.trim().to_ascii_lowercase();
        if item == "*" {
            return Some(Self::All);
        }
        if let Some(network) = Network::parse(&item) {
            return Some(Self::Network(network));
        }
        if let Ok(address) = item.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), None));
        }
        let (host, port) = match item.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (item.as_str(), None),
        };
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port));
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        match host {
            "" | "." => None,
            _ if host.starts_with('.') => Some(Self::Name { suffix: host.to_owned(), itself: false, port }),
            _ => Some(Self::Name { suffix: format!(".{host}"), itself: true, port }),
        }
    }

    fn fits(&self, url: &Url) -> bool {
        let at_port = |port: &Option<u16>| port.is_none() || *port == url.port_or_known_default();
        match self {
            Self::All => true,
            Self::Network(network) => network::address(url).is_some_and(|address| network.contains(address)),
            Self::Address(address, port) => {
                network::address(url).is_some_and(|other| other.to_canonical() == *address) && at_port(port)
            }
            Self::Name { suffix, itself, port } => {
                let host = url.host_str().unwrap_or_default();
                let fits =
                    host.ends_with(suffix.as_str()) || *itself && suffix.strip_prefix('.') == Some(host);
                fits && at_port(port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(no_proxy: &str) -> Rules {
        let proxies = Proxies {
            http: Some("plain.example:3128".to_owned()),
            https: Some("http://user:geheim@secure.example:3129".to_owned()),
            all: Some("socks5://all.example".to_owned()),
            no_proxy: Some(no_proxy.to_owned()),
        };
        proxies.rules().unwrap().unwrap()
    }

    fn host(rules: &Rules, url: &str) -> Option<String> {
        rules.proxy_for(&Url::parse(url).unwrap()).map(|proxy| proxy.host_str().unwrap().to_owned())
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let rules = rules("");
        assert_eq!(host(&rules, "http://example.com/").as_deref(), Some("plain.example"));
        assert_eq!(host(&rules, "https://example.com/").as_deref(), Some("secure.example"));
        let all = Proxies { all: Some("socks5://all.example".to_owned()), ..Proxies::default() };
        let all = all.rules().unwrap().unwrap();
        let proxy = all.proxy_for(&Url::parse("https://example.com/").unwrap()).unwrap();
        assert_eq!(proxy.as_str(), "socks5h://all.example:1080");
        assert!(Proxies { http: Some(String::new()), ..Proxies::default() }.rules().unwrap().is_none());
    }

    #[test]
    fn exceptions_are_those_of_go() {
        for (no_proxy, url, direct) in [
            ("example.com", "https://example.com/", true),
            ("example.com", "https://EXAMPLE.com/", true),
            (" Example.com ,x", "https://example.com/", true),
            ("example.com", "https://www.example.com/", true),
            ("example.com", "https://badexample.com/", false),
            (".example.com", "https://example.com/", false),
            (".example.com", "https://www.example.com/", true),
            ("*.example.com", "https://www.example.com/", true),
            ("*.example.com", "https://example.com/", false),
            ("example.com:443", "https://example.com/", true),
            ("example.com:443", "https://example.com:5000/", false),
            ("example.com:5000", "https://a.example.com:5000/", true),
            ("*", "https://example.com/", true),
            ("10.0.0.0/8", "https://10.1.2.3:5000/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("10.1.2.3", "https://10.1.2.3/", true),
            ("10.1.2.3:80", "https://10.1.2.3/", false),
            ("10.1.2.3:443", "https://10.1.2.3/", true),
            ("[fd00::1]:443", "https://[fd00::1]/", true),
            ("[fd00::1]", "https://[fd00::1]:5000/", true),
            ("fd00::1", "https://[fd00::1]/", true),
            ("fd00::/8", "https://[fd00::1]/", true),
            (":443,.,,:", "https://example.com/", false),
            ("", "https://localhost:5000/", true),
            ("", "https://127.0.0.2/", true),
            ("", "https://[::1]/", true),
        ] {
            assert_eq!(host(&rules(no_proxy), url).is_none(), direct, "NO_PROXY={no_proxy} {url}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_password() {
        for (value, shown) in [
            ("ftp://user:geheim@proxy.example", "ftp://…@proxy.example"),
            ("http://user:geheim@proxy.example:99999", "http://…@proxy.example:99999"),
            ("user:ge/he:im@proxy.example:0x", "…@proxy.example:0x"),
            ("http://user:geheim@", "http://…@"),
            ("socks5://user:geheim@a{b", "socks5://…@a{b"),
            ("socks5://user:geheim@", "socks5://…@"),
        ] {
            let error = Proxies { https: Some(value.to_owned()), ..Proxies::default() }.rules().unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("HTTPS_PROXY={shown}: ")), "{text}");
            assert!(!format!("{error:?}").contains("geheim"));
        }
    }

    #[test]
    fn passwords_do_not_show() {
        let proxies =
            Proxies { http: Some("http://user:ge@heim@proxy.example".to_owned()), ..Proxies::default() };
        let shown = format!("{proxies:?} {:?}", proxies.rules().unwrap());
        assert!(!shown.contains("heim") && shown.contains("proxy.example"), "{shown}");
    }
}
