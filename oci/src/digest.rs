//! Content digests and the two identities derived from them, each a type of its own.
//!
//! A digest is `algorithm:hex` as in the OCI image spec ("Digests"); only `sha256` and `sha512`
//! are registered there, and only lower-case hexadecimal of the exact length is valid. Parsing is
//! the only way in, so a [`Digest`] can be turned into a path or a URL without further checks.

mod hex;

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A registered digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the algorithm of practically every image.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name as it stands before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the hexadecimal part, in characters.
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// No colon between algorithm and value.
    #[error("`{text}` is not a digest: expected `algorithm:hex`")]
    Format {
        /// The text given.
        text: String,
    },
    /// An algorithm that is not registered.
    #[error("`{algorithm}` is not a supported digest algorithm (sha256, sha512)")]
    Algorithm {
        /// The part before the colon.
        algorithm: String,
    },
    /// The value is not lower-case hexadecimal of the right length.
    #[error("`{text}` is not a valid {algorithm} digest: expected {} lower-case hexadecimal digits", algorithm.hex_len())]
    Hex {
        /// The algorithm named.
        algorithm: Algorithm,
        /// The text given.
        text: String,
    },
}

/// A validated content digest.
///
/// A store has several for each layer of each image: they are kept as the bytes that they stand for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(Value);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Sha256([u8; 32]),
    // Hardly anybody has one: no digest is larger for it.
    Sha512(Box<[u8; 64]>),
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        Self(Value::Sha256(sha2::Sha256::digest(bytes).into()))
    }

    /// A digest from its parts; `hex` is checked as in parsing.
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> Result<Self, DigestError> {
        let value = match algorithm {
            Algorithm::Sha256 => hex::decode(hex).map(Value::Sha256),
            Algorithm::Sha512 => hex::decode(hex).map(|bytes| Value::Sha512(Box::new(bytes))),
        };
        value.map(Self).ok_or_else(|| DigestError::Hex { algorithm, text: hex.to_owned() })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Value::Sha256(_) => Algorithm::Sha256,
            Value::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The hexadecimal part.
    pub fn hex(&self) -> String {
        let mut room = hex::Room::default();
        room.encode(self.bytes()).to_owned()
    }

    /// The first twelve hexadecimal digits, as lists show an ID.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    /// Whether the hexadecimal part begins like this, as people shorten IDs.
    pub fn starts_with(&self, hex: &str) -> bool {
        hex::Room::default().encode(self.bytes()).starts_with(hex)
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Value::Sha256(bytes) => bytes,
            Value::Sha512(bytes) => &bytes[..],
        }
    }
}

impl Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Fewer and larger pieces than a slice is hashed in.
        for piece in self.bytes().as_chunks().0 {
            state.write_u128(u128::from_ne_bytes(*piece));
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        f.write_str(hex::Room::default().encode(self.bytes()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) =
            text.split_once(':').ok_or_else(|| DigestError::Format { text: text.to_owned() })?;
        let algorithm = Algorithm::from_name(name)
            .ok_or_else(|| DigestError::Algorithm { algorithm: name.to_owned() })?;
        Self::from_hex(algorithm, hex)
    }
}

/// Hashes a stream into a [`Digest`].
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(h) => Digest(Value::Sha256(h.finalize().into())),
            State::Sha512(h) => Digest(Value::Sha512(Box::new(h.finalize().into()))),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Digest);

        impl $name {
            /// The digest itself.
            pub fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl From<Digest> for $name {
            fn from(digest: Digest) -> Self {
                Self(digest)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.parse().map(Self)
            }
        }

        serde_as_text!($name);
    };
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(Digest);

digest_newtype! {
    /// Digest of a layer's uncompressed tar stream, as listed in `rootfs.diff_ids` of an image config.
    DiffId
}

digest_newtype! {
    /// Identity of a stack of layers (OCI image spec, "Layer `ChainID`").
    ChainId
}

impl ChainId {
    /// The chain that ends with `diff_id` on top of `parent`.
    ///
    /// `ChainID(L1) = DiffID(L1)`; `ChainID(Ln) = sha256(ChainID(Ln-1) + " " + DiffID(Ln))`.
    #[must_use]
    pub fn extend(parent: Option<&Self>, diff_id: &DiffId) -> Self {
        match parent {
            None => Self(diff_id.0.clone()),
            Some(parent) => Self(Digest::sha256_of(format!("{parent} {diff_id}").as_bytes())),
        }
    }

    /// The chain IDs of every prefix of `diff_ids`, lowest layer first.
    pub fn chain(diff_ids: &[DiffId]) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            chain.push(Self::extend(chain.last(), diff_id));
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_prints_as_it_was_parsed() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest, Digest::sha256_of(b""));
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert!(digest.starts_with("e3b") && digest.starts_with("") && digest.starts_with(&digest.hex()));
        assert!(
            !digest.starts_with("e3b1") && !digest.starts_with("sha256:e3b") && !digest.starts_with("E3B")
        );
    }

    #[test]
    fn sha512_is_known() {
        let digest = Hasher::new(Algorithm::Sha512).finish();
        assert_eq!(digest.hex().len(), 128);
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn anything_that_could_become_a_path_is_refused() {
        for text in [
            "",
            ":",
            "sha256:",
            "sha256",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:../../../../etc/passwd",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8550",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
            " sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was taken for a digest");
        }
    }

    #[test]
    fn chain_ids_follow_the_spec() {
        let a = DiffId::from(Digest::sha256_of(b"a"));
        let b = DiffId::from(Digest::sha256_of(b"b"));
        let chain = ChainId::chain(&[a.clone(), b.clone()]);
        assert_eq!(chain[0].digest(), a.digest());
        assert_eq!(chain[1].digest(), &Digest::sha256_of(format!("{a} {b}").as_bytes()));
    }
}
