//! The images of a graph, looked up as those of the store are: so that all of an answer is of one moment.

use layerstore_gc::{Group, groups};
use layerstore_oci::Digest;
use layerstore_store::{Graph, ImageInfo, ImageRow, LOCAL, Object};

use crate::error::Result;
use crate::names::{Found, ImageRows, find_in};

/// A store at one moment.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) graph: &'a Graph,
    /// Its names, by target.
    pub(super) groups: Vec<Group>,
}

impl<'a> Known<'a> {
    pub(super) fn new(graph: &'a Graph) -> Self {
        Self { graph, groups: groups(graph) }
    }

    /// As [`Layerstore::find`](crate::Layerstore::find) finds it.
    pub(super) fn find(&self, name: &str) -> Result<Found> {
        find_in(self, name)
    }

    fn blob(&self, index: usize) -> Option<&'a Digest> {
        match &self.graph.nodes[index].object {
            Object::Blob(digest) => Some(digest),
            Object::Tree(_) | Object::Snapshot { .. } => None,
        }
    }

    /// The rows of those groups that are wanted.
    fn rows(&self, wanted: impl Fn(&Group) -> bool) -> Vec<ImageRow> {
        let mut rows = Vec::new();
        for group in self.groups.iter().filter(|group| wanted(group)) {
            let Some(target) = self.blob(group.target) else { continue };
            let images: Vec<ImageInfo> = group.images.iter().filter_map(|image| self.image(*image)).collect();
            for (_, name) in group.names(self.graph).filter(|(_, name)| name.owner == LOCAL) {
                let row = |image| ImageRow {
                    name: name.name.clone(),
                    target: target.clone(),
                    updated_at: name.updated_at,
                    pulled_at: name.pulled_at,
                    pinned: name.pinned,
                    image,
                };
                if images.is_empty() {
                    rows.push(row(None));
                }
                rows.extend(images.iter().map(|image| row(Some(image.clone()))));
            }
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    fn image(&self, index: usize) -> Option<ImageInfo> {
        let facts = &self.graph.images[index];
        Some(ImageInfo {
            manifest: self.blob(facts.manifest)?.clone(),
            config: facts.config.clone(),
            platform: facts.platform.clone(),
            created: facts.created,
            last_used_at: facts.last_used_at,
            // Nothing is found by these.
            labels: serde_json::Map::new(),
            size: 0,
        })
    }
}

impl ImageRows for Known<'_> {
    fn named(&self, name: &str) -> Result<Vec<ImageRow>> {
        let has_name = |group: &Group| {
            group.names(self.graph).any(|(_, other)| other.owner == LOCAL && other.name == name)
        };
        Ok(self.rows(has_name))
    }

    fn by_digest(&self, hex: &str) -> Result<Vec<ImageRow>> {
        let fits = |digest: &Digest| digest.starts_with(hex);
        let fits_at = |index: usize| self.blob(index).is_some_and(fits);
        let leads_to = |group: &Group| {
            let mut images = group.images.iter().map(|image| &self.graph.images[*image]);
            fits_at(group.target) || images.any(|image| fits(&image.config) || fits_at(image.manifest))
        };
        Ok(self.rows(leads_to))
    }
}

#[cfg(test)]
mod tests {
    use layerstore_testkit::image::{Image, Layout};
    use layerstore_testkit::layer::{Entry, LayerBuilder};

    use super::*;
    use crate::{Layerstore, LoadOptions, Source};

    fn image(name: &str) -> Image {
        Image::new([LayerBuilder::gzip().entry(Entry::file(name, name)).finish()])
    }

    /// What of a finding `why` needs.
    fn told(found: Result<Found>) -> String {
        match found {
            Ok(mut found) => {
                if let Some(image) = &mut found.image {
                    image.labels.clear();
                    image.size = 0;
                }
                format!("{found:?}")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_found_in_a_graph_is_what_the_store_finds() {
        let dir = tempfile::tempdir().unwrap();
        let both = [image("x").platform("linux", "amd64", None), image("y").platform("linux", "arm64", None)];
        let mut layout = Layout::of("localhost/a:1", &image("a")).image("localhost/b:1", &image("b"));
        layout = layout.platforms("localhost/both:1", &both);
        let nameless = layout.parts(&image("nameless"));
        layout.list_nameless(nameless);
        let archive = dir.path().join("images.tar");
        std::fs::write(&archive, layout.archive()).unwrap();
        let store = Layerstore::open(&dir.path().join("store")).unwrap();
        let options = LoadOptions { unpack: false, ..LoadOptions::default() };
        store.load(Source::Path(archive), &options, &|_| {}).unwrap();
        store.tag("localhost/a:1", &"localhost/0:2".parse().unwrap()).unwrap();
        store.pin("localhost/0:2").unwrap();

        let graph = store.store.graph().unwrap();
        let known = Known::new(&graph);
        let mut texts: Vec<String> =
            ["localhost/a", "localhost/nothing:1", "feed", "no name", "localhost/both"]
                .map(|name| format!("{name}:1"))
                .into_iter()
                .chain(["feed", "a b"].map(str::to_owned))
                .collect();
        let rows = store.store.images(LOCAL).unwrap();
        assert_eq!(rows.len(), 6, "{rows:?}");
        for row in &rows {
            let digests = row.image.iter().flat_map(|image| [&image.config, &image.manifest]);
            for digest in digests.chain([&row.target]) {
                let name = row.name.rsplit_once(':').map_or("", |(repository, _)| repository);
                let short = digest.short();
                texts.extend([
                    digest.to_string(),
                    short,
                    format!("{name}@{digest}"),
                    format!("{}@{digest}", row.name),
                ]);
            }
            texts.push(row.name.clone());
        }
        let found = texts.iter().filter(|text| known.find(text).is_ok()).count();
        assert!(found > 30, "{found}");
        for text in &texts {
            assert_eq!(told(known.find(text)), told(store.find(text)), "{text}");
        }
    }
}
