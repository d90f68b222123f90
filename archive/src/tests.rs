//! Archives of every form, built here, through all three ways in.

mod damage;
mod forms;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};

use layerstore_oci::media_type::{self, layout_path};
use layerstore_oci::{Descriptor, Digest, Index, Manifest};
use layerstore_tar::{Entry, EntryKind, Writer};

use crate::*;

/// A member and its data.
type Part = (Entry, Vec<u8>);

fn file(name: &str, data: impl Into<Vec<u8>>) -> Part {
    let data = data.into();
    (Entry::regular(name.as_bytes(), data.len() as u64), data)
}

fn symlink(name: &str, target: &str) -> Part {
    (Entry::symlink(name.as_bytes(), target.as_bytes()), Vec::new())
}

fn hard_link(name: &str, target: &str) -> Part {
    (Entry::hard_link(name.as_bytes(), target.as_bytes()), Vec::new())
}

fn directory(name: &str) -> Part {
    (Entry::directory(name.as_bytes()), Vec::new())
}

fn tar(parts: &[Part]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in parts {
        writer.append(entry, data.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn on_disk(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// What an engine does with a stream: keep every member until the manifest has come.
struct Spool(MemberMap<Vec<u8>>);

impl Spool {
    fn read(input: impl Read + Send + 'static) -> Result<Self, Error> {
        let stream = Stream::new(input).map_err(Error::of_stream)?;
        scan_stream(stream, |_, _, reader| {
            let mut data = Vec::new();
            loop {
                let slice = reader.fill_data()?;
                if slice.is_empty() {
                    return Ok(data);
                }
                data.extend_from_slice(slice);
                let len = slice.len();
                reader.consume_data(len);
            }
        })
        .map(Self)
    }
}

impl Members for Spool {
    fn resolve(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.0.get(name).map(|(name, _)| name.to_owned()))
    }

    fn read_small(&self, name: &str, _limit: u64) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(name).map(|(_, data)| data.clone()))
    }

    fn top_level(&self) -> Vec<String> {
        self.0.top_level()
    }
}

fn unpack(parts: &[Part]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (entry, data) in parts {
        let path = root.path().join(std::str::from_utf8(&entry.path).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let link = std::str::from_utf8(&entry.link).unwrap();
        match entry.kind {
            EntryKind::Regular => fs::write(path, data).unwrap(),
            EntryKind::Symlink => std::os::unix::fs::symlink(link, path).unwrap(),
            EntryKind::HardLink => fs::hard_link(root.path().join(link), path).unwrap(),
            _ => fs::create_dir_all(path).unwrap(),
        }
    }
    root
}

/// The images of an archive as a stream and as a file, which must agree.
fn images_of(parts: &[Part]) -> Result<Vec<ArchivedImage>, Error> {
    let bytes = tar(parts);
    let indexed = TarFile::scan(on_disk(&bytes)).and_then(|tar| images(&tar));
    let streamed = Spool::read(std::io::Cursor::new(bytes)).and_then(|spool| images(&spool));
    assert_eq!(format!("{indexed:?}"), format!("{streamed:?}"));
    indexed
}

/// [`images_of`], and the same unpacked to a directory.
fn images_everywhere(parts: &[Part]) -> Vec<ArchivedImage> {
    let images = images_of(parts).unwrap();
    let root = unpack(parts);
    assert_eq!(crate::images(&Directory::new(File::open(root.path()).unwrap())).unwrap(), images);
    images
}

fn docker(image: &ArchivedImage) -> &DockerImage {
    let Content::Docker(docker) = &image.content else { panic!("{image:?} is not of the docker form") };
    docker
}

fn oci(image: &ArchivedImage) -> &Descriptor {
    let Content::Oci(descriptor) = &image.content else { panic!("{image:?} is not of the OCI form") };
    descriptor
}

fn blob(data: &[u8]) -> Part {
    file(&layout_path(&Digest::sha256_of(data)), data)
}

fn describe(media_type: &str, data: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::sha256_of(data), data.len() as u64)
}

fn manifest(config: &[u8], layer: &[u8]) -> Vec<u8> {
    Manifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: describe(media_type::OCI_CONFIG, config),
        layers: vec![describe(media_type::OCI_LAYER, layer)],
        annotations: BTreeMap::new(),
        subject: None,
        artifact_type: None,
    }
    .to_bytes()
}

fn index(manifests: Vec<Descriptor>) -> Vec<u8> {
    let media_type = media_type::OCI_INDEX.to_owned();
    Index { media_type, manifests, annotations: BTreeMap::new() }.to_bytes()
}

fn annotated(mut descriptor: Descriptor, annotations: &[(&str, &str)]) -> Descriptor {
    descriptor.annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    descriptor
}

fn layout() -> Part {
    file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
}
