//! Any bytes as an image archive: as a file and as a stream it holds the same images, and the same bytes in them.
#![no_main]

use std::fs::File;
use std::io::{self, Cursor, Read as _, Seek as _, Write as _};

use layerstore_archive::{
    ArchivedImage, Content, Error, MemberMap, Members, Source, Stream, TarFile, images, scan_stream,
};
use layerstore_fuzz::memory::bounded;
use layerstore_fuzz::mutate;
use layerstore_oci::Compression;
use layerstore_oci::media_type::layout_path;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use rustix::fs::MemfdFlags;

/// What is kept of a stream, which may be compressed.
const MAX_BYTES: u64 = 4 << 20;

/// What an engine does with a stream: keep every member until the manifest has come.
struct Spool(MemberMap<Vec<u8>>);

fuzz_target!(|bytes: &[u8]| {
    let streamed = spool(bytes).and_then(|spool| images(&spool).map(|images| (images, spool)));
    // A whole archive that is compressed can only be a stream.
    if Compression::detect(bytes) != Compression::None {
        assert!(matches!(Source::open(file(bytes)), Ok(Source::Stream(_)) | Err(_)));
        return;
    }
    let limit = 256 * bytes.len() + (1 << 20);
    let indexed = bounded(limit, || TarFile::scan(file(bytes)));
    let indexed = indexed.and_then(|tar| images(&tar).map(|images| (images, tar)));
    match (streamed, indexed) {
        (Ok((streamed, spool)), Ok((indexed, tar))) => {
            assert_eq!(streamed, indexed);
            for name in indexed.iter().flat_map(parts) {
                let mut content = Vec::new();
                if let Some(mut section) = tar.open(&name) {
                    section.read_to_end(&mut content).expect("it is in memory");
                }
                assert_eq!(spool.0.get(&name).map_or(&[][..], |(_, data)| data), content);
            }
        }
        (Err(streamed), Err(indexed)) => {
            // How far a file that is cut was read shows in the message.
            if !matches!(indexed, Error::Truncated { .. }) {
                assert_eq!(format!("{streamed:?}"), format!("{indexed:?}"));
            }
            let text = indexed.to_string();
            assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
        }
        (streamed, indexed) => panic!("{:?}, {:?}", streamed.err(), indexed.err()),
    }
});

fn spool(bytes: &[u8]) -> Result<Spool, Error> {
    let failed = |source| Error::Read { what: "the archive".to_owned(), source };
    let stream = Stream::new(Cursor::new(bytes.to_vec())).map_err(failed)?;
    let mut left = MAX_BYTES;
    scan_stream(stream, |_, _, reader| {
        let mut data = Vec::new();
        loop {
            let slice = reader.fill_data()?;
            if slice.is_empty() {
                return Ok(data);
            }
            data.extend_from_slice(slice);
            let length = slice.len();
            reader.consume_data(length);
            left = left
                .checked_sub(length as u64)
                .ok_or_else(|| failed(io::Error::other("more than the target keeps")))?;
        }
    })
    .map(Spool)
}

fn file(bytes: &[u8]) -> File {
    let file = rustix::fs::memfd_create("archive", MemfdFlags::CLOEXEC).expect("memory is a file");
    let mut file = File::from(file);
    file.write_all(bytes).expect("it is in memory");
    file.rewind().expect("it is in memory");
    file
}

/// The members that an image names.
fn parts(image: &ArchivedImage) -> Vec<String> {
    match &image.content {
        Content::Oci(descriptor) => vec![layout_path(&descriptor.digest)],
        Content::Docker(docker) => docker.layers.iter().chain([&docker.config]).cloned().collect(),
    }
}

impl Members for Spool {
    fn resolve(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.0.get(name).map(|(name, _)| name.to_owned()))
    }

    fn read_small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.0.get(name) {
            Some((_, data)) if data.len() as u64 > limit => {
                Err(Error::TooLarge { member: name.to_owned(), limit })
            }
            found => Ok(found.map(|(_, data)| data.clone())),
        }
    }

    fn top_level(&self) -> Vec<String> {
        self.0.top_level()
    }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::archive(data, size, max_size, seed)
});
