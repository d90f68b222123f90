//! Decompression, by what the bytes are rather than by what they are called.
//!
//! A gzip stream may have several members and zero padding behind the last one, as `gzip(1)` accepts; a
//! zstd stream may have several frames and skippable ones anywhere. Anything else behind the end is an
//! error: nothing may be in a layer that its diff ID does not cover.

use std::io::{self, BufRead, Cursor, Read};

use flate2::bufread::GzDecoder;
use layerstore_oci::Compression;

/// The largest zstd window accepted, as a power of two: 128 MiB, what `zstd -d` accepts by default and
/// `zstd --ultra -22` makes. Each layer that is unpacked at the same time needs as much memory as its
/// window; what image builders write has 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bytes that tell the forms apart.
const MAGIC_LENGTH: u64 = 4;

/// Decompresses whatever it is given.
pub struct Decoder<R: BufRead>(Form<Whole<R>>);

/// The source with its first bytes, which had to be read ahead.
type Whole<R> = io::Chain<Cursor<Vec<u8>>, R>;

enum Form<R: BufRead> {
    Plain(R),
    Gzip(Box<Gzip<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes of `source`.
    pub fn new(mut source: R) -> io::Result<Self> {
        // A slow source may give them one at a time.
        let mut first = Vec::new();
        source.by_ref().take(MAGIC_LENGTH).read_to_end(&mut first)?;
        let compression = Compression::detect(&first);
        let source = Cursor::new(first).chain(source);
        Ok(Self(match compression {
            Compression::None => Form::Plain(source),
            Compression::Gzip => Form::Gzip(Box::new(Gzip { member: Some(GzDecoder::new(source)) })),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Form::Zstd(Box::new(decoder))
            }
        }))
    }

    /// What was recognised.
    pub fn compression(&self) -> Compression {
        match &self.0 {
            Form::Plain(_) => Compression::None,
            Form::Gzip(_) => Compression::Gzip,
            Form::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Form::Plain(source) => source.read(buffer),
            Form::Gzip(gzip) => gzip.read(buffer),
            Form::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

struct Gzip<R> {
    /// `None` behind the last member.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            let Some(ended) = self.member.take() else { break };
            self.member = next_member(ended.into_inner())?.map(GzDecoder::new);
        }
        Ok(0)
    }
}

/// The source, if another member starts there; `None` at the end and behind zero padding.
fn next_member<R: BufRead>(mut source: R) -> io::Result<Option<R>> {
    if source.fill_buf()?.first() == Some(&0x1f) {
        return Ok(Some(source));
    }
    loop {
        let rest = source.fill_buf()?;
        if rest.is_empty() {
            return Ok(None);
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "garbage behind the gzip stream"));
        }
        let length = rest.len();
        source.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// One byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn a_slow_source_is_recognised_too() {
        let zstd = zstd::stream::encode_all(&b"data"[..], 1).unwrap();
        for stream in [gzip(b"data"), zstd, b"data".to_vec()] {
            let mut out = Vec::new();
            let source = io::BufReader::new(Slow(&stream));
            Decoder::new(source).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, b"data");
        }
    }

    fn decode(data: &[u8]) -> io::Result<Vec<u8>> {
        // A small buffer, so that members and frames end in the middle of it.
        let mut out = Vec::new();
        Decoder::new(io::BufReader::with_capacity(16, data))?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn several_gzip_members_are_one_stream() {
        let stream = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(decode(&stream).unwrap(), b"one two");
    }

    #[test]
    fn zero_padding_behind_gzip_is_accepted_and_garbage_is_not() {
        let padded = [gzip(b"data"), vec![0; 1000]].concat();
        assert_eq!(decode(&padded).unwrap(), b"data");
        let garbage = [gzip(b"data"), vec![0; 3], b"x".to_vec()].concat();
        assert!(decode(&garbage).is_err());
    }

    #[test]
    fn a_cut_or_changed_gzip_stream_is_an_error() {
        let stream = gzip(&[7; 5000]);
        assert!(decode(&stream[..stream.len() - 1]).is_err());
        let mut changed = stream.clone();
        let crc = changed.len() - 8;
        changed[crc] ^= 1;
        assert!(decode(&changed).is_err());
    }

    #[test]
    fn zstd_frames_and_skippable_frames_are_one_stream() {
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"hello"].concat();
        let frame = |data: &[u8]| zstd::stream::encode_all(data, 1).unwrap();
        let stream =
            [skippable.clone(), frame(b"one "), skippable.clone(), frame(b"two"), skippable].concat();
        assert_eq!(decode(&stream).unwrap(), b"one two");
        let cut = frame(&[7; 5000]);
        assert!(decode(&cut[..cut.len() - 1]).is_err());
    }

    #[test]
    fn nothing_and_plain_bytes_pass_through() {
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(b"plain").unwrap(), b"plain");
    }
}
