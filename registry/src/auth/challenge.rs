//! The `WWW-Authenticate` header (RFC 9110, section 11).

use std::fmt;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use url::Url;

/// One way in which a server lets clients prove themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A name and a password with each request (RFC 7617).
    Basic {
        /// What the password is for; empty if the server does not say.
        realm: String,
    },
    /// A token from a token server.
    Bearer(BearerChallenge),
    /// A scheme that we do not know, in lower case.
    Other {
        /// Its name.
        scheme: String,
    },
}

/// What a registry says about the token that it wants.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BearerChallenge {
    /// The URL of the token server; empty if the registry does not say.
    pub(crate) realm: String,
    /// The name of the registry, for the token server.
    pub(crate) service: Option<String>,
    /// What the token must be good for, such as `repository:library/nginx:pull`; several are separated by spaces.
    pub(crate) scope: Option<String>,
    /// Why the token that was sent is not good enough: `invalid_token`, `insufficient_scope`.
    pub(crate) error: Option<String>,
}

impl fmt::Debug for BearerChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let realm = match Url::parse(&self.realm) {
            Ok(url) if url.has_host() => {
                format!("{}://{}{}", url.scheme(), super::authority(&url), url.path())
            }
            _ => "…".to_owned(),
        };
        f.debug_struct("BearerChallenge")
            .field("realm", &realm)
            .field("service", &self.service)
            .field("scope", &self.scope)
            .field("error", &self.error)
            .finish()
    }
}

/// All challenges of an answer, in the order that the server has them in. What cannot be understood is passed over.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    values.flat_map(|value| parse(&String::from_utf8_lossy(value.as_bytes()))).collect()
}

/// The challenges of one header.
///
/// Commas separate challenges as well as parameters. So a name is a parameter's if an equals sign follows, and a
/// scheme's if not; where the equals sign belongs to a `token68`, that has been read with the scheme.
fn parse(text: &str) -> Vec<Challenge> {
    let mut scanner = Scanner { rest: text };
    let mut found: Vec<Raw> = Vec::new();
    loop {
        scanner.skip(|c| is_space(c) || c == ',');
        if scanner.rest.is_empty() {
            break;
        }
        let name = scanner.take(is_token);
        scanner.skip(is_space);
        match (name, found.last_mut()) {
            // What is no name at all cannot start anything.
            ("", _) => scanner.skip(|c| c != ','),
            (name, Some(raw)) if scanner.rest.starts_with('=') => {
                scanner.skip_one();
                scanner.skip(is_space);
                raw.parameters.push((name, scanner.value()));
            }
            (_, None) if scanner.rest.starts_with('=') => scanner.skip(|c| c != ','),
            (scheme, _) => {
                scanner.skip_token68();
                found.push(Raw { scheme, parameters: Vec::new() });
            }
        }
    }
    found.into_iter().map(Raw::understand).collect()
}

struct Raw<'a> {
    scheme: &'a str,
    parameters: Vec<(&'a str, String)>,
}

impl Raw<'_> {
    fn understand(mut self) -> Challenge {
        // A parameter may be there only once; the first is taken.
        let mut take = |name: &str| {
            let index = self.parameters.iter().position(|(other, _)| other.eq_ignore_ascii_case(name))?;
            Some(self.parameters.swap_remove(index).1)
        };
        if self.scheme.eq_ignore_ascii_case("basic") {
            Challenge::Basic { realm: take("realm").unwrap_or_default() }
        } else if self.scheme.eq_ignore_ascii_case("bearer") {
            Challenge::Bearer(BearerChallenge {
                realm: take("realm").unwrap_or_default(),
                service: take("service"),
                scope: take("scope"),
                error: take("error"),
            })
        } else {
            Challenge::Other { scheme: self.scheme.to_ascii_lowercase() }
        }
    }
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.take(unwanted);
    }

    fn skip_one(&mut self) {
        let mut chars = self.rest.chars();
        chars.next();
        self.rest = chars.as_str();
    }

    /// What follows an equals sign. Registries put URLs and lists of actions here without quotes, which the RFC does
    /// not allow; all up to the next comma or space is taken.
    fn value(&mut self) -> String {
        if !self.rest.starts_with('"') {
            return self.take(|c| c != ',' && !is_space(c)).to_owned();
        }
        self.skip_one();
        let mut value = String::new();
        let mut chars = self.rest.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                // An escape at the very end stands for nothing.
                '\\' => value.extend(chars.next()),
                c => value.push(c),
            }
        }
        self.rest = chars.as_str();
        value
    }

    /// Passes over the `token68` after a scheme, if there is one: it stands alone up to the comma, and no name and
    /// value look like it.
    fn skip_token68(&mut self) {
        let start = self.rest;
        self.skip(is_token68);
        self.skip(|c| c == '=');
        self.skip(is_space);
        if !self.rest.is_empty() && !self.rest.starts_with(',') {
            self.rest = start;
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn is_token68(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~+/".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer(BearerChallenge {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
            error: None,
        })
    }

    fn other(scheme: &str) -> Challenge {
        Challenge::Other { scheme: scheme.to_owned() }
    }

    fn basic(realm: &str) -> Challenge {
        Challenge::Basic { realm: realm.to_owned() }
    }

    #[test]
    fn docker_hub_is_understood() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push""#;
        let scope = Some("repository:library/nginx:pull,push");
        assert_eq!(parse(text), [bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope)]);
    }

    #[test]
    fn an_error_is_told() {
        let text = r#"Bearer realm="r",error="insufficient_scope",error_description="no""#;
        let [Challenge::Bearer(challenge)] = &parse(text)[..] else { panic!() };
        assert_eq!(challenge.error.as_deref(), Some("insufficient_scope"));
    }

    #[test]
    fn several_challenges_share_a_header() {
        let text = r#"Negotiate, Basic realm="a, Bearer realm=\"x\"" , NTLM TlRMTVNTUA==,Bearer realm=r"#;
        let expected =
            [other("negotiate"), basic(r#"a, Bearer realm="x""#), other("ntlm"), bearer("r", None, None)];
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn several_headers_are_read_in_order() {
        let mut headers = HeaderMap::new();
        for value in ["Basic realm=x", "Bearer realm=y"] {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        assert_eq!(challenges(&headers), [basic("x"), bearer("y", None, None)]);
    }

    #[test]
    fn case_and_space_do_not_count() {
        let text = "BEARER  Realm = \"r\" ,\tSERVICE=s ,, , scope=repository:a:pull";
        assert_eq!(parse(text), [bearer("r", Some("s"), Some("repository:a:pull"))]);
    }

    #[test]
    fn what_is_broken_yields_what_it_can() {
        assert_eq!(parse("realm=\"x\", Basic realm=\"unterminated"), [basic("unterminated")]);
        assert_eq!(parse(r#"Basic realm="end\"#), [basic("end")]);
        assert_eq!(parse("Basic Bearer realm=r"), [basic(""), bearer("r", None, None)]);
        assert_eq!(parse("Bearer"), [bearer("", None, None)]);
        assert_eq!(parse("\u{fffd}{}, =, \"x\", Basic"), [basic("")]);
        assert_eq!(
            parse("Bearer realm=https://a.example/t?x=1,service=s"),
            [bearer("https://a.example/t?x=1", Some("s"), None)]
        );
        assert_eq!(parse("Bearer realm=a,realm=b"), [bearer("a", None, None)]);
        assert_eq!(parse(""), []);
    }

    #[test]
    fn debug_shows_neither_user_nor_query_of_the_realm() {
        for realm in ["https://user:marker@a.example/t?key=marker#marker", "marker", "data:marker"] {
            let text = format!("{:?}", bearer(realm, None, None));
            assert!(!text.contains("marker") && !text.contains("user"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.append(WWW_AUTHENTICATE, value);
            }
            challenges(&headers);
            parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn anything_like_a_challenge_is_survived(text in r#"(Basic|Bearer|[a-z]{0,3}|[ ,="\\]|realm=|é){0,30}"#) {
            parse(&text);
        }

        #[test]
        fn a_quoted_realm_comes_back(realm in "\\PC{0,40}", scope in "\\PC{0,40}") {
            let quote = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
            let text = format!(r#"Basic realm="x", Bearer realm="{}", scope="{}""#, quote(&realm), quote(&scope));
            prop_assert_eq!(parse(&text), [basic("x"), bearer(&realm, None, Some(&scope))]);
        }
    }
}
