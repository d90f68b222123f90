//! Image references: the grammar of Docker's `distribution/reference` package, with its defaults.
//!
//! ```text
//! reference      := name [ ":" tag ] [ "@" digest ]
//! name           := [ domain "/" ] path-component { "/" path-component }
//! domain         := host [ ":" port ]            host may be "[" IPv6 address "]"
//! path-component := [a-z0-9]+ { separator [a-z0-9]+ }   separator: "." | "_" | "__" | "-"+
//! tag            := [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
//! ```
//!
//! A reference is normalised when it is parsed: `nginx` is `docker.io/library/nginx:latest`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Digest, DigestError, ErrorKind};

const DEFAULT_DOMAIN: &str = "docker.io";
/// Where Docker Hub lived first; still typed and still found in old credentials.
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// `RepositoryNameTotalLengthMax` of `distribution/reference`: counts the path, not the domain.
const MAX_PATH_LEN: usize = 255;
const MAX_TAG_LEN: usize = 128;

/// Why a text is not an image reference, and which part of it is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("an image name must not be empty")]
    Empty,
    /// 64 hexadecimal digits: an image ID, which Docker refuses as a name.
    #[error("`{text}` is an image ID, not an image name")]
    ImageId {
        /// The text given.
        text: String,
    },
    /// The registry host or its port.
    #[error("`{text}` is not an image name: in the registry `{domain}`, {reason}")]
    Domain {
        /// The text given.
        text: String,
        /// The part taken for the registry.
        domain: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The repository path.
    #[error("`{text}` is not an image name: in the repository `{path}`, {reason}")]
    Path {
        /// The text given.
        text: String,
        /// The part taken for the repository.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An upper-case letter in the repository path.
    #[error("`{text}` is not an image name: repository names are lower-case (did you mean `{lower}`?)")]
    UpperCase {
        /// The text given.
        text: String,
        /// The same text with its repository in lower case.
        lower: String,
    },
    /// The repository path is too long.
    #[error("the repository name has {length} characters, more than the {MAX_PATH_LEN} allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The tag.
    #[error("`{text}` is not an image name: in the tag `{tag}`, {reason}")]
    Tag {
        /// The text given.
        text: String,
        /// The part taken for the tag.
        tag: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The digest.
    #[error("`{text}` is not an image name: the part after `@` is not a digest")]
    Digest {
        /// The text given.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

impl ReferenceError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// A normalised image reference; it has a tag, a digest or both.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// `domain/path`.
    repository: Box<str>,
    /// Length of the domain within `repository`.
    domain_len: usize,
    tag: Option<Box<str>>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry, with its port if one was given: `docker.io`, `[::1]:5000`.
    pub fn domain(&self) -> &str {
        &self.repository[..self.domain_len]
    }

    /// The repository within the registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.repository[self.domain_len + 1..]
    }

    /// Registry and repository: `docker.io/library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, `latest` if neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The repository as Docker prints it: `nginx`, `user/app`, `host:5000/a/b`.
    ///
    /// Unlike Docker, `docker.io` stays where the short form would be read as another registry
    /// (`docker.io/my.org/app`), so that what is printed always means what it was printed for.
    pub fn familiar_repository(&self) -> &str {
        if self.domain() != DEFAULT_DOMAIN {
            return &self.repository;
        }
        let path = self.path();
        if let Some(name) = path.strip_prefix(OFFICIAL_PREFIX)
            && !name.contains('/')
        {
            return name;
        }
        match path.split_once('/') {
            Some((first, _)) if is_domain(first) => &self.repository,
            _ => path,
        }
    }

    /// The short form Docker prints: `nginx:latest`. It parses to the same reference.
    pub fn familiar(&self) -> String {
        self.join(self.familiar_repository())
    }

    /// The same reference with another tag. A digest stays.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag).map_err(|reason| ReferenceError::Tag {
            text: format!("{}:{tag}", self.familiar_repository()),
            tag: tag.to_owned(),
            reason,
        })?;
        Ok(Self { tag: Some(tag.into()), ..self.clone() })
    }

    /// The same reference with another digest. A tag stays.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same reference without its digest; `latest` if nothing else is left.
    #[must_use]
    pub fn without_digest(&self) -> Self {
        let tag = self.tag.clone().or_else(|| Some(DEFAULT_TAG.into()));
        Self { tag, digest: None, ..self.clone() }
    }

    fn join(&self, repository: &str) -> String {
        let mut text = repository.to_owned();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::ImageId { text: text.to_owned() });
        }
        // Neither names nor tags contain `@`, and neither tags nor digests contain `/`.
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (domain, rest) = match name.split_once('/') {
            Some((LEGACY_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
            Some((first, rest)) if is_domain(first) => (first, rest),
            _ => (DEFAULT_DOMAIN, name),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };

        check_domain(domain).map_err(|reason| ReferenceError::Domain {
            text: text.to_owned(),
            domain: domain.to_owned(),
            reason,
        })?;
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            let start = name.len() - rest.len();
            let (before, after) = (&text[..start], &text[start + path.len()..]);
            let lower = format!("{before}{}{after}", path.to_ascii_lowercase());
            return Err(ReferenceError::UpperCase { text: text.to_owned(), lower });
        }
        check_path(path).map_err(|reason| ReferenceError::Path {
            text: text.to_owned(),
            path: path.to_owned(),
            reason,
        })?;
        if let Some(tag) = tag {
            check_tag(tag).map_err(|reason| ReferenceError::Tag {
                text: text.to_owned(),
                tag: tag.to_owned(),
                reason,
            })?;
        }
        let digest = digest
            .map(|digest| {
                digest
                    .parse::<Digest>()
                    .map_err(|source| ReferenceError::Digest { text: text.to_owned(), source })
            })
            .transpose()?;

        let official = if domain == DEFAULT_DOMAIN && !path.contains('/') { OFFICIAL_PREFIX } else { "" };
        let length = official.len() + path.len();
        if length > MAX_PATH_LEN {
            return Err(ReferenceError::TooLong { length });
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Self {
            repository: format!("{domain}/{official}{path}").into(),
            domain_len: domain.len(),
            tag: tag.map(Into::into),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.join(&self.repository))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(Reference);

/// Whether the first of several components names a registry rather than a Docker Hub user.
fn is_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    let port = if let Some(bracketed) = domain.strip_prefix('[') {
        let (address, rest) =
            bracketed.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return Err("an IPv6 address holds only hexadecimal digits and colons");
        }
        if rest.is_empty() {
            None
        } else {
            Some(rest.strip_prefix(':').ok_or("only a port may follow the IPv6 address")?)
        }
    } else {
        let (host, port) = match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        };
        for label in host.split('.') {
            if label.is_empty() {
                return Err("a part between two dots is empty");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err("a part starts or ends with a hyphen");
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err("only letters, digits, hyphens and dots are allowed");
            }
        }
        port
    };
    match port {
        Some(port) if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) => {
            Err("the port is not a number")
        }
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    path.split('/').try_for_each(check_component)
}

fn check_component(component: &str) -> Result<(), &'static str> {
    if component.is_empty() {
        return Err("a part between two slashes is empty");
    }
    // Runs of letters and digits alternate with separators, and a run comes first and last.
    let is_alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separators = component.as_bytes().split(|b| is_alphanumeric(*b)).peekable();
    let (mut first, mut valid) = (true, true);
    while let Some(separator) = separators.next() {
        let edge = first || separators.peek().is_none();
        first = false;
        if separator.iter().any(|b| !matches!(b, b'.' | b'_' | b'-')) {
            return Err("only lower-case letters, digits, `.`, `_`, `-` and `/` are allowed");
        }
        if edge && !separator.is_empty() {
            return Err("a part starts or ends with a separator");
        }
        valid &= matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-');
    }
    if valid { Ok(()) } else { Err("separators may not be joined except as `__` or `--`") }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    if tag.is_empty() {
        return Err("there must be at least one character");
    }
    if tag.len() > MAX_TAG_LEN {
        return Err("there are more than 128 characters");
    }
    if tag.starts_with(['.', '-']) {
        return Err("the first character must be a letter, a digit or `_`");
    }
    if tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        Ok(())
    } else {
        Err("only letters, digits, `_`, `.` and `-` are allowed")
    }
}

#[cfg(test)]
mod tests;
