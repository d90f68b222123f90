use proptest::prelude::*;

use super::*;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn parse(json: &str) -> Result<Document, DocumentError> {
    Document::parse(json.replace('A', A).replace('B', B).as_bytes(), None)
}

fn error(json: &str) -> String {
    parse(json).expect_err(json).to_string()
}

#[test]
fn manifests_of_both_families_are_read() {
    let docker = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
        "config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":7,"digest":"A"},
        "layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":9,"digest":"B","urls":null}]}"#;
    let Document::Manifest(manifest) = parse(docker).unwrap() else { panic!("not a manifest") };
    assert_eq!(manifest.media_type, media_type::DOCKER_MANIFEST);
    assert_eq!(manifest.config.size, 7);
    assert_eq!(manifest.layers[0].digest.to_string(), B);

    let oci = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":7,
        "digest":"A"},"layers":null,"subject":{"mediaType":"x","size":1,"digest":"B"},"artifactType":"y","unknown":[1]}"#;
    let document = parse(oci).unwrap();
    assert_eq!(document.media_type(), media_type::OCI_MANIFEST);
    assert_eq!(document.children().count(), 1);
    let Document::Manifest(manifest) = document else { panic!("not a manifest") };
    assert_eq!((manifest.layers.len(), manifest.artifact_type.as_deref()), (0, Some("y")));
    assert_eq!(manifest.subject.unwrap().digest.to_string(), B);
}

#[test]
fn indexes_are_read_with_their_platforms() {
    let json = r#"{"schemaVersion":2,"manifests":[
        {"mediaType":"m","size":1,"digest":"A","platform":{"architecture":"arm","os":"linux","variant":"v7"}},
        {"mediaType":"m","size":1,"digest":"B","platform":{"architecture":"","os":""},"annotations":{"k":null}}]}"#;
    let Document::Index(index) = parse(json).unwrap() else { panic!("not an index") };
    assert_eq!(index.media_type, media_type::OCI_INDEX);
    assert_eq!(index.manifests[0].platform, Some(Platform::new("linux", "arm", Some("v7"))));
    assert_eq!(index.manifests[1].platform, None);
    assert_eq!(index.manifests[1].annotations["k"], "");
}

#[test]
fn an_empty_index_may_be_null() {
    for json in [r#"{"schemaVersion":2,"manifests":[]}"#, r#"{"schemaVersion":2,"manifests":null}"#] {
        let document = Document::parse(json.as_bytes(), Some(media_type::OCI_INDEX)).unwrap();
        assert_eq!(document.children().count(), 0);
    }
    assert!(Document::parse(b"{}", Some(media_type::OCI_INDEX)).is_err());
    // With the one form inside and the other outside it is neither.
    for (inside, outside) in
        [(media_type::OCI_MANIFEST, media_type::OCI_INDEX), (media_type::OCI_INDEX, media_type::OCI_MANIFEST)]
    {
        let json = format!(r#"{{"schemaVersion":2,"mediaType":"{inside}","manifests":null}}"#);
        let result = Document::parse(json.as_bytes(), Some(outside));
        assert!(matches!(result, Err(DocumentError::NotADocument { .. })), "{inside}: {result:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let config = r#""config":{"mediaType":"c","size":1,"digest":"A"}"#;
    for (json, message) in [
        ("", "not a valid manifest or index"),
        ("null", "not a valid manifest or index"),
        ("[]", "not a valid manifest or index"),
        ("{", "not a valid manifest or index"),
        (r#"{"a":1}"#, "not a manifest or index: it has neither"),
        (r#"{"layers":[]}"#, "it has no `config`"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema version 1 is not supported"),
        (r#"{"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws"}"#, "schema version 1"),
        (r#"{"schemaVersion":3,"manifests":[]}"#, "schema version 3 is not supported"),
        (r#"{"mediaType":"text/html","manifests":[]}"#, "media type is that of something else"),
        (&format!(r#"{{{config},"manifests":[]}}"#), "both `manifests` and `config`"),
        (r#"{"layers":[],"manifests":[]}"#, "both `manifests` and `layers`"),
        (
            r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
            "is an index, but its media type is `application/vnd.oci.image.manifest.v1+json`",
        ),
        (
            &format!(r#"{{"mediaType":"application/vnd.oci.image.index.v1+json",{config}}}"#),
            "is a manifest, but its media type is",
        ),
        (r#"{"config":{"mediaType":"c","size":-1,"digest":"A"}}"#, "has the impossible size -1"),
        (r#"{"config":{"mediaType":"c","size":9223372036854775808,"digest":"A"}}"#, "not a valid manifest"),
        (r#"{"config":{"mediaType":"c","size":1e3,"digest":"A"}}"#, "not a valid manifest"),
        (r#"{"config":{"mediaType":"c","size":1,"digest":"sha256:../../x"}}"#, "not a valid manifest"),
        (r#"{"config":{"mediaType":"c","digest":"A"}}"#, "not a valid manifest"),
        (&format!("{{{config},{config}}}"), "not a valid manifest"),
    ] {
        let error = error(json);
        assert!(error.contains(message), "{json}: {error}");
    }
}

#[test]
fn a_hint_counts_only_if_it_is_a_document_type() {
    let json = format!(r#"{{"config":{{"mediaType":"c","size":1,"digest":"{A}"}}}}"#);
    let parse = |hint| Document::parse(json.as_bytes(), Some(hint));
    assert!(parse("application/octet-stream").is_ok());
    assert!(parse(media_type::DOCKER_MANIFEST).is_ok());
    assert!(matches!(parse(media_type::OCI_INDEX), Err(DocumentError::MediaType { .. })));
    assert!(matches!(parse(media_type::DOCKER_MANIFEST_V1), Err(DocumentError::SchemaVersion1)));
}

#[test]
fn documents_are_bounded() {
    let large = format!(r#"{{"manifests":[],"x":"{}"}}"#, "x".repeat(4 << 20));
    assert!(matches!(Document::parse(large.as_bytes(), None), Err(DocumentError::TooLarge { .. })));
    let one = format!(r#"{{"size":1,"digest":"{A}"}}"#);
    let many = format!(r#"{{"manifests":[{}]}}"#, vec![one; 20_000].join(","));
    assert!(matches!(Document::parse(many.as_bytes(), None), Err(DocumentError::Json { .. })));
    assert!(Document::parse("[".repeat(1 << 20).as_bytes(), None).is_err());
}

#[test]
fn what_is_written_is_deterministic_and_valid_for_others() {
    let mut layer = Descriptor::new(media_type::OCI_LAYER_GZIP, B.parse().unwrap(), 12);
    layer.annotations.insert("k".into(), "v".into());
    let manifest = Manifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::new(media_type::OCI_CONFIG, A.parse().unwrap(), 7),
        layers: vec![layer],
        annotations: BTreeMap::new(),
        subject: None,
        artifact_type: None,
    };
    let bytes = manifest.to_bytes();
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{A}","size":7}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{B}","size":12,"annotations":{{"k":"v"}}}}]}}"#
        )
    );
    let theirs = oci_spec::image::ImageManifest::from_reader(bytes.as_slice()).unwrap();
    assert_eq!(theirs.layers()[0].digest().to_string(), B);
    assert_eq!(Document::parse(&bytes, None).unwrap(), Document::Manifest(manifest.clone()));

    let mut member = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256_of(&bytes), bytes.len() as u64);
    member.platform = Some(Platform::new("linux", "amd64", None));
    let index = Index {
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests: vec![member],
        annotations: BTreeMap::new(),
    };
    let bytes = index.to_bytes();
    let theirs = oci_spec::image::ImageIndex::from_reader(bytes.as_slice()).unwrap();
    assert_eq!(theirs.manifests()[0].platform().as_ref().unwrap().architecture().to_string(), "amd64");
    assert_eq!(Document::parse(&bytes, None).unwrap(), Document::Index(index));
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // A result of either kind will do.
        drop(Document::parse(&bytes, None));
    }

    #[test]
    fn no_mutation_panics(at in 0usize..400, with in any::<u8>()) {
        let mut json = format!(r#"{{"schemaVersion":2,"config":{{"size":1,"digest":"{A}"}},"layers":[{{"size":1,"digest":"{B}"}}]}}"#).into_bytes();
        let at = at % json.len();
        json[at] = with;
        if let Ok(document) = Document::parse(&json, None) {
            prop_assert!(document.children().count() <= 2);
        }
    }
}
