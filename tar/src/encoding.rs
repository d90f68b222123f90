//! The encodings of libarchive's `LIBARCHIVE.xattr.` records: a name in percent encoding, a value in base64
//! without padding.

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn base64_encode(data: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(data.len().div_ceil(3) * 4);
    for group in data.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..=group.len() {
            text.push(BASE64[(bits >> (18 - 6 * i) & 63) as usize]);
        }
    }
    text
}

/// Accepts padding and its absence; `None` for anything else that is not base64.
pub(crate) fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|&c| c != b'=').map_or(0, |last| last + 1);
    let text = &text[..end];
    let mut data = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        if group.len() == 1 {
            return None;
        }
        let mut bits = 0;
        for &c in group {
            let digit = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(digit);
        }
        let bytes = (bits << (6 * (4 - group.len()))).to_be_bytes();
        data.extend_from_slice(&bytes[1..group.len()]);
    }
    Some(data)
}

pub(crate) fn percent_encode(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len());
    for &c in name {
        if c.is_ascii_graphic() && !matches!(c, b'%' | b'=') {
            text.push(c);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            text.extend([b'%', HEX[usize::from(c >> 4)], HEX[usize::from(c & 15)]]);
        }
    }
    text
}

pub(crate) fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&c) = rest.next() {
        if c == b'%' {
            let digit = |c: Option<&u8>| char::from(*c?).to_digit(16);
            let byte = digit(rest.next())? << 4 | digit(rest.next())?;
            name.push(u8::try_from(byte).ok()?);
        } else {
            name.push(c);
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        for (data, text) in [
            (&b""[..], &b""[..]),
            (b"f", b"Zg"),
            (b"fo", b"Zm8"),
            (b"foo", b"Zm9v"),
            (b"foob", b"Zm9vYg"),
            (b"\xff\xfe\xfd", b"//79"),
        ] {
            assert_eq!(base64_encode(data), text);
            assert_eq!(base64_decode(text).unwrap(), data);
        }
        assert_eq!(base64_decode(b"Zm8=").unwrap(), b"fo");
        assert_eq!(base64_decode(b"===").unwrap(), b"");
        for bad in [&b"Z"[..], b"Zm9vY", b"Z m8", b"Zm=8", b"Zm8\n"] {
            assert_eq!(base64_decode(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn percent() {
        assert_eq!(percent_encode(b"user.a=b%\n\xc3"), b"user.a%3Db%25%0A%C3");
        assert_eq!(percent_decode(b"user.a%3db%25%0A%C3").unwrap(), b"user.a=b%\n\xc3");
        for bad in [&b"%"[..], b"%4", b"%4g", b"%+1"] {
            assert_eq!(percent_decode(bad), None, "{}", bad.escape_ascii());
        }
    }
}
