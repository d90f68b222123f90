//! Compressed streams: damaged ones, and whole ones of several pieces, whose content is known.
#![no_main]

use std::io::{self, BufReader, Read as _, Write as _};

use arbitrary::{Arbitrary, Unstructured};
use layerstore_fuzz::memory::bounded;
use layerstore_oci::{Compression, DiffId, Digest};
use layerstore_unpack::{Decoder, Limits, digest};
use libfuzzer_sys::fuzz_target;

/// Of the uncompressed stream.
const LIMIT: u64 = 1 << 20;

/// Each costs a compressor.
const MAX_PIECES: usize = 8;

#[derive(Debug, Arbitrary)]
enum Piece<'a> {
    Gzip(&'a [u8]),
    Zstd(&'a [u8]),
    Skippable(&'a [u8]),
    Zeros(u8),
    Garbage(&'a [u8]),
}

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        // The buffers of three threads go round; a decompressor's own tables come on top.
        Some((0, stream)) => bounded(16 << 20, || decode(stream)),
        Some((_, program)) => pieces(program),
        None => {}
    }
});

/// Decodes a stream in four ways, which must agree.
fn decode(stream: &[u8]) {
    let whole = read(BufReader::new(stream));
    let slowly = read(BufReader::with_capacity(3, stream));
    // Damage just behind what is read at most is noticed or not.
    let cut = |content: &io::Result<Vec<u8>>| content.as_ref().is_ok_and(|c| c.len() as u64 > LIMIT);
    if !cut(&whole) && !cut(&slowly) {
        assert_eq!(whole.as_ref().ok(), slowly.as_ref().ok());
    }
    let limits = Limits { output_bytes: LIMIT, ..Limits::default() };
    for size in [Some(1), None] {
        match (&whole, digest(stream, size, &limits)) {
            (Ok(content), Ok(found)) => {
                assert!(found.bytes <= LIMIT);
                assert_eq!(found.bytes, content.len() as u64);
                assert_eq!(found.diff_id, DiffId::from(Digest::sha256_of(content)));
            }
            // What follows the allowed bytes may be damaged, which is noticed first.
            (Ok(content), Err(_)) => assert!(content.len() as u64 > LIMIT),
            (Err(_), Err(_)) => {}
            (one, other) => panic!("{:?}, {other:?}", one.as_ref().map(Vec::len)),
        }
    }
}

/// A little more than is allowed, so that this shows.
fn read(stream: impl io::BufRead) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut decoder = Decoder::new(stream)?;
    decoder.by_ref().take(LIMIT + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// A stream made of pieces, each whole.
fn pieces(program: &[u8]) {
    let mut program = Unstructured::new(program);
    let (mut stream, mut content) = (Vec::new(), Vec::new());
    let mut form = None;
    // Whether the stream is as the decoder's documentation allows.
    let (mut valid, mut padded) = (true, false);
    for _ in 0..MAX_PIECES {
        // At the end of the input there would be empty pieces without end.
        let Ok(piece) = Piece::arbitrary(&mut program) else { break };
        if program.is_empty() {
            break;
        }
        let (own, bytes, data): (_, _, &[u8]) = match piece {
            Piece::Gzip(data) => (Some(Compression::Gzip), gzip(data), data),
            Piece::Zstd(data) => {
                (Some(Compression::Zstd), zstd::encode_all(data, 1).expect("it compresses"), data)
            }
            Piece::Skippable(data) => {
                let length = u32::try_from(data.len()).expect("inputs are short").to_le_bytes();
                (Some(Compression::Zstd), [b"\x53\x2a\x4d\x18", &length[..], data].concat(), &[])
            }
            Piece::Zeros(count) => (None, vec![0; usize::from(count)], &[]),
            Piece::Garbage(data) => (None, [b"\x01", data].concat(), &[]),
        };
        stream.extend_from_slice(&bytes);
        content.extend_from_slice(data);
        let Some(form) = form else {
            // Without a magic number in front it is not compressed at all.
            form = own;
            if own.is_none() {
                return decode(&stream);
            }
            continue;
        };
        match (form, own) {
            (Compression::Gzip, None) if bytes.iter().all(|byte| *byte == 0) => padded |= !bytes.is_empty(),
            (_, Some(own)) if own == form => valid &= !padded,
            (_, None) if bytes.is_empty() => {}
            _ => valid = false,
        }
    }
    decode(&stream);
    let decoded = read(BufReader::with_capacity(11, stream.as_slice()));
    assert_eq!(decoded.is_ok(), valid, "{:?}", decoded.as_ref().err());
    if let Ok(decoded) = decoded {
        assert!(decoded == content, "decoded to something else");
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("it compresses");
    encoder.finish().expect("it compresses")
}
