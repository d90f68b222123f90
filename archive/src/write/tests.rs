use std::fs::File;
use std::io::{Seek as _, Write as _};

use layerstore_oci::media_type::{OCI_LAYER_GZIP, OCI_MANIFEST};

use super::*;
use crate::{ArchivedImage, Content, DockerImage, Members, TarFile, images};

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::sha256_of(bytes), bytes.len() as u64)
}

fn names(names: &[&str]) -> Vec<Reference> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

const BLOBS: [&[u8]; 3] = [b"{\"a\":1}", b"a config", b"a layer"];

fn entry(names: Vec<Reference>) -> DockerEntry {
    let [_, config, layer] = BLOBS.map(Digest::sha256_of);
    let diff_id: DiffId = Digest::sha256_of(b"inflated").into();
    let source = Descriptor {
        urls: vec!["https://example.com/layer".to_owned()],
        ..descriptor(OCI_LAYER_GZIP, BLOBS[2])
    };
    DockerEntry { config, layers: vec![layer], layer_sources: [(diff_id, source)].into(), names }
}

fn archive(image: &NamedDescriptor, docker: Option<&[DockerEntry]>) -> Vec<u8> {
    let mut writer = ArchiveWriter::begin(Vec::new(), std::slice::from_ref(image), docker).unwrap();
    for blob in BLOBS {
        writer.blob(&Digest::sha256_of(blob), blob.len() as u64, blob, |_| ()).unwrap();
    }
    writer.finish().unwrap()
}

fn read(archive: &[u8]) -> (TarFile, Vec<ArchivedImage>) {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(archive).unwrap();
    file.rewind().unwrap();
    let tar = TarFile::scan(file).unwrap();
    let found = images(&tar).unwrap();
    (tar, found)
}

#[test]
fn what_is_written_is_read_back() {
    let descriptor = descriptor(OCI_MANIFEST, BLOBS[0]);
    let names = names(&["a:1", "registry.example.com/b/c:2"]);
    let image = NamedDescriptor { descriptor: descriptor.clone(), names: names.clone() };
    let docker = archive(&image, Some(&[entry(names)]));
    for bytes in [&docker, &archive(&image, None)] {
        let (tar, found) = read(bytes);
        let [found] = found.try_into().unwrap();
        assert_eq!(found.names, ["docker.io/library/a:1", "registry.example.com/b/c:2"]);
        let Content::Oci(read) = found.content else { panic!("{found:?}") };
        assert_eq!(
            (read.digest, read.size, read.media_type),
            (descriptor.digest.clone(), descriptor.size, descriptor.media_type.clone())
        );
        for blob in BLOBS {
            let member = layout_path(&Digest::sha256_of(blob));
            assert_eq!(tar.read_small(&member, 100).unwrap().as_deref(), Some(blob));
        }
    }
    assert_eq!(docker, archive(&image, Some(&[entry(image.names.clone())])), "the same bytes");
}

/// As one that knows nothing of OCI layouts sees it.
#[test]
fn docker_finds_its_own_form() {
    let image = NamedDescriptor { descriptor: descriptor(OCI_MANIFEST, BLOBS[0]), names: Vec::new() };
    let (tar, _) = read(&archive(&image, Some(&[entry(Vec::new()), entry(names(&["a:1"]))])));
    let bytes = tar.read_small(MANIFEST, 10_000).unwrap().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(r#""RepoTags":null"#) && text.contains(r#""RepoTags":["docker.io/library/a:1"]"#));
    let mut only_docker = layerstore_tar::Writer::new(Vec::new());
    let manifest = tar::Entry::regular(MANIFEST.as_bytes(), text.len() as u64);
    only_docker.append(&manifest, text.as_bytes()).unwrap();
    for blob in BLOBS {
        let path = layout_path(&Digest::sha256_of(blob));
        only_docker.append(&tar::Entry::regular(path.as_bytes(), blob.len() as u64), blob).unwrap();
    }
    let (_, found) = read(&only_docker.finish().unwrap());
    let DockerEntry { config, layers, layer_sources, .. } = entry(Vec::new());
    let layers = layers.iter().map(layout_path).collect();
    let expected = DockerImage { config: layout_path(&config), layers, layer_sources };
    assert_eq!(found[1].content, Content::Docker(expected));
    assert_eq!(found[1].names, ["docker.io/library/a:1"]);
}

#[test]
fn a_blob_that_is_something_else_is_an_error() {
    let digest = Digest::sha256_of(b"right");
    for bad in [&b"wrong"[..], b"righ", b"right and more"] {
        let mut writer = ArchiveWriter::begin(Vec::new(), &[], None).unwrap();
        let error = writer.blob(&digest, 5, bad, |_| ()).unwrap_err();
        assert!(matches!(error, WriteError::Blob(_)) && error.kind() == ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
    }
}

#[test]
fn a_failure_of_the_output_is_told_apart() {
    // As large as the buffer of the writer, so that it is not only noticed at the end.
    let blob = vec![0; 2 * BUFFER];
    let mut room = vec![0; BUFFER];
    let mut writer = ArchiveWriter::begin(&mut room[..], &[], None).unwrap();
    let error = writer.blob(&Digest::sha256_of(&blob), blob.len() as u64, &blob[..], |_| ()).unwrap_err();
    assert!(matches!(error, WriteError::Output { .. }), "{error:?}");
    let mut room = [0; 512];
    let error = ArchiveWriter::begin(&mut room[..], &[], None).unwrap().finish().unwrap_err();
    assert!(matches!(error, WriteError::Output { .. }), "{error:?}");
}

#[test]
fn progress_counts_the_bytes_of_a_blob() {
    let blob = vec![0; 3 * BUFFER + 1];
    let mut seen = Vec::new();
    let mut writer = ArchiveWriter::begin(std::io::sink(), &[], None).unwrap();
    let size = blob.len() as u64;
    writer.blob(&Digest::sha256_of(&blob), size, &blob[..], |done| seen.push(done)).unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&size), "{seen:?}");
}
