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
            // Without a branch for each digit, which takes several times as long.
            let mut all = 0;
            for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
                let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
                all |= high | low;
                *byte = high << 4 | low & 0xf;
            }
            (all != NO_DIGIT).then_some(bytes)
        });
        bytes.map_or_else(|| Self::Other(text.into()), Self::Sha256)
    }
}

const NO_DIGIT: u8 = 0xff;

/// The values of digits as digests are written, which is in lower case.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value: u8 = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};
