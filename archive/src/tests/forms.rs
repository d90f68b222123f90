//! Archives as they should be.

use super::*;

const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// As Docker wrote them until version 24: manifest last, repeated layers as symlinks.
fn old_docker() -> Vec<Part> {
    vec![
        directory("aa/"),
        file("aa/VERSION", "1.0"),
        file("aa/json", "{}"),
        file("aa/layer.tar", "lower"),
        file("bb/layer.tar", "upper"),
        symlink("cc/layer.tar", "../aa/layer.tar"),
        file("config.json", "{}"),
        file(
            "manifest.json",
            r#"[{"Config":"config.json","RepoTags":["app:1","app:2"],"Layers":["aa/layer.tar","bb/layer.tar","cc/layer.tar"]},
                {"Config":"config.json","RepoTags":null,"Layers":null}]"#,
        ),
        file("repositories", "{}"),
    ]
}

#[test]
fn docker_archives_of_the_old_form() {
    let images = images_everywhere(&old_docker());
    assert_eq!(images.len(), 2);
    assert_eq!(images[0].names, ["app:1", "app:2"]);
    assert_eq!(docker(&images[0]).config, "config.json");
    assert_eq!(docker(&images[0]).layers, ["aa/layer.tar", "bb/layer.tar", "aa/layer.tar"]);
    assert_eq!((images[1].names.len(), docker(&images[1]).layers.len()), (0, 0));
}

#[test]
fn members_are_read_from_their_position() {
    let archive = TarFile::scan(on_disk(&tar(&old_docker()))).unwrap();
    for (name, data) in [("aa/layer.tar", "lower"), ("bb/layer.tar", "upper"), ("cc/layer.tar", "lower")] {
        let mut read = String::new();
        archive.open(name).unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, data);
        assert_eq!(archive.extent(name).unwrap().len, 5);
    }
    assert!(archive.open("aa").is_none());
    assert!(archive.open("../manifest.json").is_none());
    assert_eq!(archive.members().iter().count(), 7);
}

#[test]
fn an_archive_may_start_anywhere_in_its_file() {
    let mut bytes = b"before".to_vec();
    bytes.extend(tar(&old_docker()));
    let mut file = on_disk(&bytes);
    file.seek(SeekFrom::Start(6)).unwrap();
    let Source::Tar(archive) = Source::open(file.try_clone().unwrap()).unwrap() else {
        panic!("not indexed")
    };
    assert_eq!(archive.read_small("aa/layer.tar", 10).unwrap().unwrap(), b"lower");
    assert_eq!(file.stream_position().unwrap(), 6);
}

#[test]
fn links_work_in_both_kinds_and_layer_sources_are_kept() {
    let diff_id = Digest::sha256_of(b"lower");
    let sources = format!(
        r#"{{"{diff_id}":{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","size":9,"digest":"{diff_id}","urls":["https://example.com/x"]}}}}"#
    );
    let images = images_everywhere(&[
        file("a.tar", "lower"),
        hard_link("b.tar", "a.tar"),
        symlink("c.tar", "./d.tar"),
        symlink("d.tar", "a.tar"),
        file("c.json", "{}"),
        file(
            "manifest.json",
            format!(
                r#"[{{"Config":"./c.json","Layers":["a.tar","c.tar"],"LayerSources":{sources},"Parent":"x"}}]"#
            ),
        ),
    ]);
    let image = docker(&images[0]);
    assert_eq!(
        (image.config.as_str(), image.layers.as_slice()),
        ("c.json", &["a.tar", "a.tar"].map(String::from)[..])
    );
    let source = &image.layer_sources[&diff_id.into()];
    assert_eq!(source.urls, ["https://example.com/x"]);
}

#[test]
fn no_images_are_no_error() {
    assert_eq!(images_everywhere(&[file("manifest.json", "[]")]), []);
    assert_eq!(images_everywhere(&[layout(), file("index.json", index(Vec::new()))]), []);
}

/// As Docker writes them since version 25: both forms, one descriptor per name.
fn new_docker(annotations: [&[(&str, &str)]; 2]) -> Vec<Part> {
    let (config, layer) = (b"{}", b"layer");
    let manifest = manifest(config, layer);
    let descriptor = describe(media_type::OCI_MANIFEST, &manifest);
    let config_path = layout_path(&Digest::sha256_of(config));
    let layer_path = layout_path(&Digest::sha256_of(layer));
    vec![
        blob(config),
        blob(layer),
        blob(&manifest),
        file("index.json", index(annotations.map(|list| annotated(descriptor.clone(), list)).to_vec())),
        file(
            "manifest.json",
            format!(
                r#"[{{"Config":"{config_path}","RepoTags":["app:1","app:2"],"Layers":["{layer_path}"]}}]"#
            ),
        ),
        layout(),
    ]
}

#[test]
fn docker_archives_of_the_new_form() {
    let images = images_everywhere(&new_docker([
        &[(IMAGE_NAME, "docker.io/library/app:1"), (REF_NAME, "1")],
        &[(IMAGE_NAME, "docker.io/library/app:2"), (REF_NAME, "2")],
    ]));
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].names, ["docker.io/library/app:1", "docker.io/library/app:2"]);
    assert!(images[0].tags.is_empty());
    assert_eq!(oci(&images[0]).media_type, media_type::OCI_MANIFEST);
}

#[test]
fn names_come_from_the_manifest_where_the_index_has_none() {
    let images = images_everywhere(&new_docker([&[], &[(REF_NAME, "2")]]));
    assert_eq!(
        (images[0].names.as_slice(), images[0].tags.as_slice()),
        (&["app:1", "app:2"].map(String::from)[..], &["2".to_owned()][..])
    );

    // The same one level down, as in archives of several platforms.
    let mut parts = new_docker([&[], &[]]);
    let manifest = manifest(b"{}", b"layer");
    let absent = describe(media_type::OCI_MANIFEST, b"of another platform");
    let inner = index(vec![absent, describe(media_type::OCI_MANIFEST, &manifest)]);
    parts.push(blob(&inner));
    parts.push(file("index.json", index(vec![describe(media_type::OCI_INDEX, &inner)])));
    let images = images_everywhere(&parts);
    assert_eq!(images[0].names, ["app:1", "app:2"]);
    assert_eq!(oci(&images[0]).media_type, media_type::OCI_INDEX);
}

#[test]
fn oci_archives_name_their_images_in_annotations() {
    let descriptors = [
        (&[(REF_NAME, "localhost/app:1")][..], "localhost/app:1", ""),
        (&[(REF_NAME, "v1")][..], "", "v1"),
        (&[(IMAGE_NAME, "app"), (REF_NAME, "v1")][..], "app", ""),
        (&[][..], "", ""),
    ];
    let list = (0u8..)
        .zip(descriptors)
        .map(|(n, (list, ..))| annotated(describe(media_type::OCI_MANIFEST, &[n]), list));
    for parts in [
        vec![layout(), file("index.json", index(list.clone().collect()))],
        vec![file("index.json", index(list.collect()))],
    ] {
        let images = images_everywhere(&parts);
        for (image, (_, name, tag)) in images.iter().zip(descriptors) {
            assert_eq!((image.names.concat().as_str(), image.tags.concat().as_str()), (name, tag));
        }
        assert_eq!(images.len(), 4);
    }
}

#[test]
fn whole_archives_may_be_compressed() {
    let bytes = tar(&old_docker());
    let mut gzip = Vec::new();
    for half in [&bytes[..3000], &bytes[3000..]] {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(half).unwrap();
        gzip.extend(encoder.finish().unwrap());
    }
    // A skippable frame, then two others.
    let mut zstd = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
    for half in [&bytes[..3000], &bytes[3000..]] {
        zstd.extend(zstd::encode_all(half, 1).unwrap());
    }
    for compressed in [gzip, zstd] {
        let Source::Stream(stream) = Source::open(on_disk(&compressed)).unwrap() else {
            panic!("not a stream")
        };
        assert_ne!(stream.compression(), layerstore_oci::Compression::None);
        let spool = Spool::read(stream).unwrap();
        assert_eq!(images(&spool).unwrap()[0].names, ["app:1", "app:2"]);
        assert_eq!(spool.read_small("cc/layer.tar", 10).unwrap().unwrap(), b"lower");

        // Damage after the end of the archive counts too: a checksum is there.
        let cut = compressed[..compressed.len() - 1].to_vec();
        let error = Spool::read(std::io::Cursor::new(cut)).err().unwrap();
        assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
    }
}

#[test]
fn pipes_are_streams_and_directories_directories() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let bytes = tar(&old_docker());
    let writing = std::thread::spawn(move || writer.write_all(&bytes));
    let source = Source::open(File::from(std::os::fd::OwnedFd::from(reader))).unwrap();
    let Source::Stream(stream) = source else { panic!("{source:?} is not a stream") };
    assert_eq!(images(&Spool::read(stream).unwrap()).unwrap().len(), 2);
    writing.join().unwrap().unwrap();

    let root = unpack(&old_docker());
    let source = Source::open(File::open(root.path()).unwrap()).unwrap();
    assert!(matches!(source, Source::Directory(_)));
}
