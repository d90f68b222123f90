//! Hexadecimal as digests are written: in lower case.

/// The bytes that `text` stands for; nothing if it is not that long or has anything but lower-case digits.
pub(super) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; N] = pairs.try_into().ok()?;
    // Without tables and branches, so that the compiler does many digits at once.
    let valid = pairs.iter().flatten().fold(true, |valid, digit| {
        valid & ((digit.wrapping_sub(b'0') < 10) | (digit.wrapping_sub(b'a') < 6))
    });
    let value = |digit: u8| (digit & 0xf) + 9 * (digit >> 6);
    valid.then(|| pairs.map(|[high, low]| value(high) << 4 | value(low)))
}

/// Room for the digits of the longest digest.
pub(super) struct Room([u8; 128]);

impl Default for Room {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl Room {
    /// The digits of `bytes`, of which there are 64 at most.
    pub(super) fn encode(&mut self, bytes: &[u8]) -> &str {
        for (pair, byte) in self.0.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        self.0.get(..bytes.len() * 2).and_then(|digits| str::from_utf8(digits).ok()).unwrap_or_default()
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_and_nothing_else_is_taken() {
        for byte in u8::MIN..=u8::MAX {
            let mut room = Room::default();
            assert_eq!(decode(room.encode(&[byte, 7])), Some([byte, 7]));
        }
        for text in ["0", "000", "0g", "0G", "0A", "g0", " 0", "00 ", "\u{e9}", "0000"] {
            assert_eq!(decode::<1>(text), None, "{text:?}");
        }
    }
}
