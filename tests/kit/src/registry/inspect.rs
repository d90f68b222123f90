//! Looks into a registry's storage, past the registry: its layout is that of `distribution`'s file system driver.

use std::fs;
use std::path::{Path, PathBuf};

use super::Registry;
use crate::hex_of;

impl Registry {
    /// The file that holds a blob or manifest, for tests that damage or remove it.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = hex_of(digest);
        self.storage().join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// The bytes of a blob or manifest, whatever repository it is in.
    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        fs::read(self.blob_path(digest)).ok()
    }

    /// Whether a repository has a blob.
    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        let link = format!("_layers/sha256/{}/link", hex_of(digest));
        self.repository(repository).join(link).exists() && self.blob_path(digest).exists()
    }

    /// Whether a repository has a manifest, under a tag or without.
    pub fn has_manifest(&self, repository: &str, digest: &str) -> bool {
        let link = format!("_manifests/revisions/sha256/{}/link", hex_of(digest));
        self.repository(repository).join(link).exists() && self.blob_path(digest).exists()
    }

    /// The digest of the manifest that has a tag.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        let link = format!("_manifests/tags/{tag}/current/link");
        fs::read_to_string(self.repository(repository).join(link)).ok()
    }

    /// The bytes of the manifest that has a tag.
    pub fn manifest(&self, repository: &str, tag: &str) -> Option<Vec<u8>> {
        self.blob(&self.tag(repository, tag)?)
    }

    /// The tags of a repository, in order.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        names(&self.repository(repository).join("_manifests/tags"))
    }

    /// How many uploads to a repository were begun and neither finished nor given up.
    pub fn uploads(&self, repository: &str) -> usize {
        names(&self.repository(repository).join("_uploads")).len()
    }

    fn repository(&self, repository: &str) -> PathBuf {
        self.storage().join("repositories").join(repository)
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
