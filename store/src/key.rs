//! Digests to look things up by.

/// A digest to look something up by: there are several for each layer of each image, and to make room for their texts
/// takes longer than all that is done with them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The usual digest.
    Sha256([u8; 32]),
    /// Every other text.
    Other(Box<str>),
}

impl Key {
    pub(crate) fn of(text: &str) -> Self {
        let bytes = text.strip_prefix("sha256:").and_then(|hex| {
            let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return None };
            let mut bytes = [0; 32];
            if pairs.len() != bytes.len() {
                return None;
            }
            for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
                *byte = nibble(*high)? << 4 | nibble(*low)?;
            }
            Some(bytes)
        });
        bytes.map_or_else(|| Self::Other(text.into()), Self::Sha256)
    }
}

/// The value of a digit as digests are written, which is in lower case.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
