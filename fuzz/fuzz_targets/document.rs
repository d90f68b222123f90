//! Any bytes as manifest, index and config: bounded memory, and what is written says the same.
#![no_main]

use layerstore_fuzz::memory::bounded;
use layerstore_oci::{ContainerConfig, Document, History, ImageConfig, media_type};
use libfuzzer_sys::fuzz_target;

const HINTS: [Option<&str>; 4] =
    [None, Some(media_type::OCI_INDEX), Some(media_type::DOCKER_MANIFEST), Some("application/octet-stream")];

fuzz_target!(|bytes: &[u8]| {
    for hint in HINTS {
        let limit = 256 * bytes.len() + (64 << 10);
        if let Ok(document) = bounded(limit, || Document::parse(bytes, hint)) {
            check(&document);
        }
    }
    if let Ok(config) = bounded(256 * bytes.len() + (64 << 10), || ImageConfig::parse(bytes)) {
        let text = serde_json::to_vec(&config.config).expect("a config can be written");
        assert_eq!(serde_json::from_slice::<ContainerConfig>(&text).expect("and read"), config.config);
        let text = serde_json::to_vec(&config.history).expect("a history can be written");
        assert_eq!(serde_json::from_slice::<Vec<History>>(&text).expect("and read"), config.history);
        if let Some(platform) = &config.platform {
            assert!(platform.normalised().normalised() == platform.normalised());
            assert!(!platform.accepts().is_empty());
        }
    }
});

fn check(document: &Document) {
    let bytes = match document {
        Document::Index(index) => index.to_bytes(),
        Document::Manifest(manifest) => manifest.to_bytes(),
    };
    let again = Document::parse(&bytes, Some(document.media_type())).expect("what was written is valid");
    assert_eq!(&again, document);
    assert_eq!(Document::parse(&bytes, None).expect("what was written is valid"), again);
    // The digest of an image must not depend on how often it was written.
    let bytes_again = match &again {
        Document::Index(index) => index.to_bytes(),
        Document::Manifest(manifest) => manifest.to_bytes(),
    };
    assert_eq!(bytes_again, bytes);
    for child in document.children() {
        assert!(i64::try_from(child.size).is_ok());
    }
}
