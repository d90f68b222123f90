//! Composes images and OCI layouts. Every part stays open to change, so that a test can damage it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::layer::Layer;
use crate::{digest, hex_of};

/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// An image of one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The config document.
    pub config: Value,
    /// Bottom layer first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// An image of `layers` for this machine's platform.
    pub fn new(layers: impl IntoIterator<Item = Layer>) -> Self {
        let layers: Vec<Layer> = layers.into_iter().collect();
        let diff_ids: Vec<_> = layers.iter().map(|l| l.diff_id.clone()).collect();
        let created = "2024-01-01T00:00:00Z";
        let history: Vec<_> = (0..layers.len())
            .map(|i| json!({"created": created, "created_by": format!("step {i}")}))
            .collect();
        let config = json!({
            "created": created,
            "architecture": host_architecture(),
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        Self { config, layers }
    }

    /// The same image for another platform.
    #[must_use]
    pub fn platform(mut self, os: &str, architecture: &str, variant: Option<&str>) -> Self {
        self.config["os"] = json!(os);
        self.config["architecture"] = json!(architecture);
        if let Some(variant) = variant {
            self.config["variant"] = json!(variant);
        }
        self
    }

    /// The bytes of the config.
    pub fn config_bytes(&self) -> Vec<u8> {
        self.config.to_string().into_bytes()
    }

    /// The image ID: the digest of the config.
    pub fn id(&self) -> String {
        digest(&self.config_bytes())
    }

    /// The manifest document.
    pub fn manifest(&self) -> Value {
        let layers: Vec<_> = self.layers.iter().map(|l| descriptor(&l.media_type, &l.blob)).collect();
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &self.config_bytes()),
            "layers": layers,
        })
    }

    /// The platform as an index names it.
    pub fn platform_object(&self) -> Value {
        let mut platform = json!({"architecture": self.config["architecture"], "os": self.config["os"]});
        if let Some(variant) = self.config.get("variant") {
            platform["variant"] = variant.clone();
        }
        platform
    }
}

/// The architecture of this machine as images name it.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A descriptor of `bytes`.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// An OCI layout in memory.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Blobs by the digest they are filed under, which need not be their own.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The contents of `index.json`.
    pub index: Value,
}

impl Default for Layout {
    fn default() -> Self {
        Self::new()
    }
}

impl Layout {
    /// A layout without images.
    pub fn new() -> Self {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
        Self { blobs: BTreeMap::new(), index }
    }

    /// A layout of one image with one name.
    pub fn of(name: &str, image: &Image) -> Self {
        Self::new().image(name, image)
    }

    /// Files `bytes` under their own digest, which is returned.
    pub fn blob(&mut self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Files the manifest, config and layers of an image; returns the manifest's descriptor.
    pub fn parts(&mut self, image: &Image) -> Value {
        let manifest = image.manifest().to_string().into_bytes();
        self.blob(&manifest);
        self.blob(&image.config_bytes());
        for layer in &image.layers {
            self.blob(&layer.blob);
        }
        descriptor(MANIFEST, &manifest)
    }

    /// Lists a descriptor in `index.json` under `name`, which is a full reference such as `localhost/a:1`.
    pub fn list(&mut self, name: &str, mut descriptor: Value) {
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        descriptor["annotations"] = json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": tag,
        });
        self.index["manifests"].as_array_mut().unwrap().push(descriptor);
    }

    /// Lists a manifest or index under no name.
    pub fn list_nameless(&mut self, descriptor: Value) {
        self.index["manifests"].as_array_mut().unwrap().push(descriptor);
    }

    /// Adds an image under `name`.
    #[must_use]
    pub fn image(mut self, name: &str, image: &Image) -> Self {
        let descriptor = self.parts(image);
        self.list(name, descriptor);
        self
    }

    /// Adds an index of `images`, one for each platform, under `name`.
    #[must_use]
    pub fn platforms(mut self, name: &str, images: &[Image]) -> Self {
        let mut manifests = Vec::new();
        for image in images {
            let mut descriptor = self.parts(image);
            descriptor["platform"] = image.platform_object();
            manifests.push(descriptor);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let index = index.to_string().into_bytes();
        self.blob(&index);
        self.list(name, descriptor(INDEX, &index));
        self
    }

    /// The files of the layout: path and contents.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), self.index.to_string().into_bytes()),
        ];
        for (digest, bytes) in &self.blobs {
            files.push((format!("blobs/sha256/{}", hex_of(digest)), bytes.clone()));
        }
        files
    }

    /// Writes the layout as a directory.
    pub fn write(&self, dir: &Path) {
        for (path, bytes) in self.files() {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// The layout as an OCI archive.
    pub fn archive(&self) -> Vec<u8> {
        pack(self.files().iter().map(|(path, bytes)| (path.as_str(), Member::File(bytes))))
    }
}

/// What a member of an archive is.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    /// A file with these contents.
    File(&'a [u8]),
    /// A symbolic link to this target.
    Link(&'a str),
    /// A directory.
    Dir,
}

/// Writes an uncompressed tar archive.
pub fn pack<'a>(members: impl IntoIterator<Item = (&'a str, Member<'a>)>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, member) in members {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        let data: &[u8] = match member {
            Member::File(data) => data,
            Member::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name(target).unwrap();
                &[]
            }
            Member::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                &[]
            }
        };
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, path, data).unwrap();
    }
    tar.into_inner().unwrap()
}
