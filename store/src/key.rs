//! Texts to look things up by.

use layerstore_oci::Digest;

/// A text to look something up by, which is nearly always a digest: there are several for each layer of each image, and to
/// make room for their texts takes longer than all that is done with them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A digest.
    Digest(Digest),
    /// Every other text.
    Other(Box<str>),
}

impl Key {
    pub(crate) fn of(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Other(text.into()), Self::Digest)
    }
}
