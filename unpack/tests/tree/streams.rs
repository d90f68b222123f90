//! Compressed, uncompressed, whole and damaged streams.

use layerstore_oci::Compression;
use layerstore_testkit::layer::Compression as Kit;

use super::*;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(crate) fn both(stream: &[u8], options: &Options) -> Result<Tree, Error> {
    let inline = unpack_with(stream, Some(1), options);
    let threaded = unpack_with(stream, None, options);
    match (inline, threaded) {
        (Ok(inline), Ok(threaded)) => {
            inline.snapshot().assert_same(&threaded.snapshot());
            assert_eq!(inline.stream, threaded.stream);
            assert_eq!(inline.unpacked, threaded.unpacked);
            Ok(threaded)
        }
        (Err(inline), Err(threaded)) => {
            assert_eq!(inline.kind(), threaded.kind(), "{inline:?}, {threaded:?}");
            Err(threaded)
        }
        (inline, threaded) => panic!("one failed: {:?}, {:?}", inline.err(), threaded.err()),
    }
}

pub(crate) fn sample() -> Vec<u8> {
    let noise: Vec<u8> = (0..900_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    tar(&[dir("d"), file("d/large", noise), file("small", "data")])
}

#[test]
fn every_form_gives_the_same_tree_and_digest() {
    let plain = sample();
    let half = plain.len() / 2;
    let skippable = [&[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let members =
        |kit: Kit| [kit.compress(&plain[..half]), kit.compress(b""), kit.compress(&plain[half..])].concat();
    let expected = layerstore_testkit::digest(&plain);
    let first = both(&plain, &options()).unwrap();
    for (stream, compression) in [
        (plain.clone(), Compression::None),
        (Kit::Gzip.compress(&plain), Compression::Gzip),
        (members(Kit::Gzip), Compression::Gzip),
        ([Kit::Gzip.compress(&plain), vec![0; 700]].concat(), Compression::Gzip),
        (Kit::Zstd.compress(&plain), Compression::Zstd),
        (members(Kit::Zstd), Compression::Zstd),
        ([skippable.clone(), Kit::Zstd.compress(&plain), skippable].concat(), Compression::Zstd),
    ] {
        let tree = both(&stream, &options()).unwrap();
        assert_eq!(tree.stream.diff_id.to_string(), expected);
        assert_eq!(tree.stream.bytes, plain.len() as u64);
        assert_eq!(tree.stream.compression, compression);
        tree.snapshot().assert_same(&first.snapshot());
        let digest = layerstore_unpack::digest(stream.as_slice(), None, &Limits::default()).unwrap();
        assert_eq!(digest, tree.stream);
    }
}

#[test]
fn nothing_at_all_is_an_empty_layer() {
    for stream in [Vec::new(), Kit::Gzip.compress(b""), Kit::Zstd.compress(b"")] {
        let tree = both(&stream, &options()).unwrap();
        assert_eq!(tree.stream.diff_id.to_string(), EMPTY);
        assert_eq!((tree.stream.bytes, tree.implied()), (0, vec![String::new()]));
        assert_eq!(tree.usage(), Usage { bytes: 0, inodes: 1, ..tree.counted() });
    }
    let tree = both(&tar(&[]), &options()).unwrap();
    assert_eq!(tree.stream.diff_id.to_string(), layerstore_testkit::digest(&[0; 1024]));
}

#[test]
fn the_digest_covers_what_follows_the_archive() {
    for tail in [vec![0; 10_240], b"garbage".to_vec(), vec![1; 3_000_000], tar(&[file("hidden", "")])] {
        let plain = [tar(&[file("f", "data")]), tail].concat();
        for kit in [Kit::None, Kit::Gzip, Kit::Zstd] {
            let tree = both(&kit.compress(&plain), &options()).unwrap();
            assert_eq!(tree.stream.diff_id.to_string(), layerstore_testkit::digest(&plain));
            assert_eq!(tree.shape(), ["f"]);
        }
    }
}

#[test]
fn a_cut_stream_is_corrupt() {
    let plain = tar(&[dir("d"), file("d/f", vec![5; 70_000]), file("g", "data")]);
    for kit in [Kit::None, Kit::Gzip, Kit::Zstd] {
        let whole = kit.compress(&plain);
        let cuts: Vec<usize> = match kit {
            // In a header, in data and in padding; between entries nobody can tell.
            Kit::None => vec![1, 300, 511, 513, 1500, 70_000],
            _ => (1..whole.len()).step_by(whole.len() / 60 + 1).chain([whole.len() - 1]).collect(),
        };
        for cut in cuts {
            let Err(error) = both(&whole[..cut], &options()) else { panic!("{kit:?} at {cut} is whole") };
            assert_eq!(error.kind(), layerstore_oci::ErrorKind::Corrupt, "{kit:?} at {cut}: {error:?}");
        }
    }
}

#[test]
fn garbage_behind_a_compressed_stream_is_corrupt() {
    for kit in [Kit::Gzip, Kit::Zstd] {
        for tail in [&b"x"[..], &[0x1f], &[0x1f, 0x8b, 8, 0], &[0, 0, 0, 1], &[0x28, 0xb5]] {
            let stream = [kit.compress(&sample()), tail.to_vec()].concat();
            let Err(error) = both(&stream, &options()) else { panic!("{kit:?} with {tail:?}") };
            assert_eq!(error.kind(), layerstore_oci::ErrorKind::Corrupt, "{kit:?} {tail:?}: {error:?}");
        }
    }
}

/// Fails behind some bytes, as a network does.
struct Broken(usize);

impl std::io::Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.0);
        self.0 -= count;
        buffer[..count].fill(1);
        if count == 0 { Err(std::io::ErrorKind::ConnectionReset.into()) } else { Ok(count) }
    }
}

#[test]
fn a_source_that_fails_is_an_error_of_the_stream() {
    for (bytes, size) in [(0, None), (0, Some(1)), (600, Some(1)), (2_000_000, None)] {
        let dir = tempfile::tempdir().unwrap();
        let result = layerstore_unpack::digest(Broken(bytes), size, &Limits::default());
        assert!(matches!(result, Err(Error::Stream { .. })), "{result:?}");
        let umask = std::thread::scope(|scope| {
            let unpack = || {
                layerstore_unpack::unpack(Broken(bytes), size, dir.path(), &options(), &PrivateUmask::enter())
                    .is_err()
            };
            scope.spawn(unpack).join().unwrap()
        });
        assert!(umask);
    }
}
