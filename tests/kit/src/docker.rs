//! Composes docker-archives in the forms that `docker save` has written over the years.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::image::{Image, Layout, Member, pack};
use crate::{digest, hex_of};

/// Images to be saved, each with its names (`localhost/a:1`), which may be none.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    images: Vec<(Vec<String>, Image)>,
}

impl Archive {
    /// An archive without images.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an image. Docker saves layers uncompressed; other writers do not always.
    #[must_use]
    pub fn image(mut self, names: &[&str], image: &Image) -> Self {
        self.images.push((names.iter().map(ToString::to_string).collect(), image.clone()));
        self
    }

    /// The form up to Docker 24: a directory for each layer, a layer's second appearance as a symbolic link
    /// to the first, the manifest last.
    pub fn legacy(&self) -> Vec<u8> {
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let mut links: Vec<(String, String)> = Vec::new();
        let mut homes: BTreeMap<String, String> = BTreeMap::new();
        let mut manifest = Vec::new();
        for (names, image) in &self.images {
            let mut parent = String::new();
            let mut paths = Vec::new();
            for layer in &image.layers {
                let v1 = json!({"os": "linux", "parent": parent, "layer": layer.diff_id, "of": image.id()});
                let id = hex_of(&digest(v1.to_string().as_bytes())).to_owned();
                files.push((format!("{id}/VERSION"), b"1.0".to_vec()));
                files.push((
                    format!("{id}/json"),
                    json!({"id": id, "parent": parent}).to_string().into_bytes(),
                ));
                let path = format!("{id}/layer.tar");
                if let Some(home) = homes.get(&layer.diff_id) {
                    links.push((path.clone(), format!("../{home}/layer.tar")));
                } else {
                    files.push((path.clone(), layer.blob.clone()));
                    homes.insert(layer.diff_id.clone(), id.clone());
                }
                paths.push(path);
                parent = id;
            }
            let config = format!("{}.json", hex_of(&image.id()));
            files.push((config.clone(), image.config_bytes()));
            manifest.push(json!({"Config": config, "RepoTags": tags(names), "Layers": paths}));
        }
        let directories: BTreeSet<_> =
            files.iter().filter_map(|(path, _)| Some(format!("{}/", path.split_once('/')?.0))).collect();
        let (manifest, repositories) = (Value::from(manifest).to_string(), self.repositories());
        let members = directories
            .iter()
            .map(|path| (path.as_str(), Member::Dir))
            .chain(files.iter().map(|(path, bytes)| (path.as_str(), Member::File(bytes))))
            .chain(links.iter().map(|(path, target)| (path.as_str(), Member::Link(target))))
            .chain([
                ("manifest.json", Member::File(manifest.as_bytes())),
                ("repositories", Member::File(repositories.as_bytes())),
            ]);
        pack(members)
    }

    /// The form since Docker 25: an OCI layout with a `manifest.json` that points into it.
    pub fn modern(&self) -> Vec<u8> {
        let mut layout = Layout::new();
        let mut manifest = Vec::new();
        let blob = |digest: &str| format!("blobs/sha256/{}", hex_of(digest));
        for (names, image) in &self.images {
            let descriptor = layout.parts(image);
            // Docker lists an image without names once.
            if names.is_empty() {
                layout.list_nameless(descriptor.clone());
            }
            for name in names {
                layout.list(name, descriptor.clone());
            }
            let layers: Vec<_> = image.layers.iter().map(|l| blob(&l.digest())).collect();
            manifest.push(json!({"Config": blob(&image.id()), "RepoTags": tags(names), "Layers": layers}));
        }
        let mut files = layout.files();
        files.push(("manifest.json".to_owned(), Value::from(manifest).to_string().into_bytes()));
        files.push(("repositories".to_owned(), self.repositories().into_bytes()));
        // Docker walks a directory, so the members come in byte order and `manifest.json` after the blobs.
        files.sort();
        pack(
            ["blobs/", "blobs/sha256/"]
                .map(|path| (path, Member::Dir))
                .into_iter()
                .chain(files.iter().map(|(path, bytes)| (path.as_str(), Member::File(bytes)))),
        )
    }

    fn repositories(&self) -> String {
        let mut repositories: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        let ids: Vec<_> = self.images.iter().map(|(_, image)| image.id()).collect();
        for ((names, _), id) in self.images.iter().zip(&ids) {
            for (repository, tag) in names.iter().filter_map(|name| name.rsplit_once(':')) {
                repositories.entry(repository).or_default().insert(tag, hex_of(id));
            }
        }
        json!(repositories).to_string()
    }
}

/// An image without names has `null` there, as Docker writes it.
fn tags(names: &[String]) -> Value {
    if names.is_empty() { Value::Null } else { json!(names) }
}

/// An archive of many tiny images, to measure what an image costs rather than its bytes. Each image has
/// `depth` layers of three small files; ten images that follow each other share the lower half.
pub fn many(images: usize, depth: usize) -> Vec<u8> {
    use crate::layer::{Compression, Entry, LayerBuilder};

    let mut archive = Archive::new();
    for i in 0..images {
        let layers = (0..depth).map(|d| {
            let seed = if d < depth / 2 { format!("family{}/{d}", i / 10) } else { format!("image{i}/{d}") };
            (0..3).fold(LayerBuilder::new(Compression::None), |layer, k| {
                layer.entry(Entry::file(
                    format!("opt/{}/f{k}", seed.replace('/', "_")),
                    format!("{seed}-{k}\n").repeat(50),
                ))
            })
        });
        archive = archive
            .image(&[&format!("localhost/many/i{i}:v1")], &Image::new(layers.map(LayerBuilder::finish)));
    }
    archive.legacy()
}
