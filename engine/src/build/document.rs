//! What an image is made of below its new layer, and how it is added.

use std::io::Read as _;

use layerstore_oci::media_type::{OCI_CONFIG, OCI_FOREIGN_LAYER, OCI_LAYER, OCI_MANIFEST};
use layerstore_oci::{
    Compression, Descriptor, Digest, Document, ImageConfig, LayerKind, MAX_DOCUMENT_BYTES, Manifest,
    Reference,
};
use layerstore_store::{
    Edge, EdgeKind, ImageCommit, ImageInfo, LOCAL, MAX_LAYERS, NewBlob, NewImage, Object, Publication,
    Session,
};
use serde_json::{Map, Value};

use super::Built;
use super::layer::NewLayer;
use crate::Layerstore;
use crate::error::{Error, Result};
use crate::images::seconds;

/// The image below, all of it under the session's lease.
#[derive(Debug)]
pub(super) struct Base<'a> {
    pub(super) info: &'a ImageInfo,
    /// Its config.
    pub(super) config: Vec<u8>,
    /// Its layers, lowest first, with OCI's media types.
    layers: Vec<Descriptor>,
}

impl Layerstore {
    /// Reads the documents of an image, and makes sure that nothing of it is missing.
    pub(super) fn base<'a>(&self, session: &Session, info: &'a ImageInfo) -> Result<Base<'a>> {
        let documents = [(info.manifest.clone(), None), (info.config.clone(), None)];
        let found = self.store.lease_layers(session, &documents)?;
        for ((digest, _), presence) in documents.iter().zip(found) {
            if presence.blob.is_none() {
                return Err(Error::LostBlob { image: info.config.clone(), digest: digest.clone() });
            }
        }
        let unusable = |what, digest: &Digest| {
            let digest = digest.to_string();
            move |source| Error::Document { what, digest, source }
        };
        let bytes = self.store.read_blob(&info.manifest, MAX_DOCUMENT_BYTES)?;
        let manifest = match Document::parse(&bytes, None).map_err(unusable("manifest", &info.manifest))? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => {
                let reason = "it has no manifest of its own".to_owned();
                return Err(Error::NotUnpackable { name: info.config.to_string(), reason });
            }
        };
        let config = self.store.read_blob(&info.config, MAX_DOCUMENT_BYTES)?;
        let parsed = ImageConfig::parse(&config)
            .and_then(|parsed| parsed.check_layers(&manifest).map(|()| parsed))
            .map_err(unusable("image config", &info.config))?;
        if manifest.layers.len() >= MAX_LAYERS {
            let (count, max) = (manifest.layers.len() + 1, MAX_LAYERS);
            return Err(layerstore_store::Error::TooManyLayers { count, max }.into());
        }
        let wanted: Vec<_> = manifest
            .layers
            .iter()
            .zip(parsed.diff_ids)
            .map(|(layer, diff_id)| (layer.digest.clone(), diff_id))
            .collect();
        let leased: Vec<_> =
            wanted.iter().map(|(digest, diff_id)| (digest.clone(), Some(diff_id.clone()))).collect();
        let found = self.store.lease_layers(session, &leased)?;
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for ((layer, presence), (_, diff_id)) in manifest.layers.into_iter().zip(found).zip(wanted) {
            let here = presence.blob.is_some();
            // What is to be had elsewhere need not be here, nor what was evicted, if one knows how it is compressed.
            let spared = !layer.urls.is_empty()
                || says_compression(&layer) && self.store.is_evicted(&layer.digest, &diff_id)?;
            if !here && !spared {
                return Err(Error::LostBlob { image: info.config.clone(), digest: layer.digest });
            }
            layers.push(self.as_oci(layer, here)?);
        }
        Ok(Base { info, config, layers })
    }

    /// The descriptor with OCI's media type: a manifest has those of one kind.
    pub(super) fn as_oci(&self, layer: Descriptor, here: bool) -> Result<Descriptor> {
        let LayerKind::Layer { compression, foreign } = LayerKind::of(&layer.media_type) else {
            return Ok(layer);
        };
        let compression = match compression {
            Some(compression) => compression,
            None if here => self.compression_of_blob(&layer.digest)?,
            None => Compression::None,
        };
        let base = if foreign { OCI_FOREIGN_LAYER } else { OCI_LAYER };
        Ok(Descriptor { media_type: format!("{base}{}", suffix(compression)), ..layer })
    }

    fn compression_of_blob(&self, digest: &Digest) -> Result<Compression> {
        let mut first = Vec::new();
        let file = self.store.open_blob(digest)?;
        file.take(Compression::MAGIC_LEN as u64)
            .read_to_end(&mut first)
            .map_err(|source| Error::Read { what: digest.to_string(), source })?;
        Ok(Compression::detect(&first))
    }

    /// Adds the image, and gives it its name.
    pub(super) fn commit_image(
        &self,
        session: &Session,
        base: Option<&Base<'_>>,
        config: &Map<String, Value>,
        layer: NewLayer,
        name: Option<&Reference>,
        new: &mut Vec<Object>,
    ) -> Result<Built> {
        let config = serde_json::to_vec(config).unwrap_or_default();
        let id = Digest::sha256_of(&config);
        let parsed = ImageConfig::parse(&config).map_err(|source| Error::Document {
            what: "image config",
            digest: id.to_string(),
            source,
        })?;
        let media_type = format!("{OCI_LAYER}{}", suffix(layer.compression));
        let mut layers = base.map(|base| base.layers.clone()).unwrap_or_default();
        layers.push(Descriptor::new(media_type, layer.digest.clone(), layer.size));
        let manifest = Manifest {
            media_type: OCI_MANIFEST.to_owned(),
            config: Descriptor::new(OCI_CONFIG, id.clone(), config.len() as u64),
            layers,
            annotations: std::collections::BTreeMap::new(),
            subject: None,
            artifact_type: None,
        };
        let bytes = manifest.to_bytes();
        let digest = Digest::sha256_of(&bytes);
        let blobs = manifest.layers.iter().map(|layer| layer.digest.clone());
        let image = NewImage {
            manifest: digest.clone(),
            config: id.clone(),
            platform: match base {
                Some(base) => base.info.platform.clone(),
                None => parsed.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
            },
            created: parsed.created.as_deref().and_then(seconds),
            labels: parsed.config.labels.into_iter().collect(),
            layers: blobs.zip(parsed.diff_ids.iter().cloned()).collect(),
        };
        self.check_links(&[(id.to_string(), parsed.diff_ids)])?;
        let documents = [(id.clone(), OCI_CONFIG, config), (digest.clone(), OCI_MANIFEST, bytes)];
        new.extend(self.publish_new_documents(session, documents)?);
        let children = manifest.layers.iter().map(|layer| (&layer.digest, EdgeKind::Layer));
        let edges = std::iter::once((&id, EdgeKind::Config))
            .chain(children)
            .map(|(child, kind)| Edge { parent: digest.clone(), child: child.clone(), kind })
            .collect();
        let references = match name {
            Some(name) => vec![(name.to_string(), digest.clone())],
            // Nothing else would keep it.
            None if !self.store.references(LOCAL)?.iter().any(|row| row.target == digest) => {
                vec![(digest.to_string(), digest.clone())]
            }
            None => Vec::new(),
        };
        self.store
            .commit_images(session, &ImageCommit { edges, images: vec![image], references, pulled: false })?;
        Ok(Built { id, manifest: digest, layer: layer.digest, diff_id: layer.diff_id, size: layer.size })
    }

    fn publish_new_documents(
        &self,
        session: &Session,
        documents: [(Digest, &str, Vec<u8>); 2],
    ) -> Result<Vec<Object>> {
        let wanted = documents.each_ref().map(|(digest, ..)| (digest.clone(), None));
        let present = self.store.lease_layers(session, &wanted)?;
        let mut publication = Publication::default();
        for ((digest, media_type, bytes), presence) in documents.into_iter().zip(present) {
            if presence.blob.is_some() && !self.store.discard_if_damaged(&digest)? {
                continue;
            }
            let mut ingest = session.ingest(digest.algorithm())?;
            ingest.write(&bytes)?;
            let received = ingest.finish(Some((&digest, bytes.len() as u64)))?;
            let media_type = Some(media_type.to_owned());
            publication.blobs.push(NewBlob { received, media_type, diff_id: None });
        }
        if publication.blobs.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.store.publish(session, publication)?)
    }
}

fn says_compression(layer: &Descriptor) -> bool {
    matches!(LayerKind::of(&layer.media_type), LayerKind::Layer { compression: Some(_), .. })
}

/// What says how a layer is compressed, in OCI's media types.
pub(super) fn suffix(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    }
}

#[cfg(test)]
mod tests {
    use layerstore_oci::media_type;

    use super::*;

    #[test]
    fn suffixes_are_those_of_the_media_types() {
        for (compression, expected) in [
            (Compression::None, media_type::OCI_LAYER),
            (Compression::Gzip, media_type::OCI_LAYER_GZIP),
            (Compression::Zstd, media_type::OCI_LAYER_ZSTD),
        ] {
            assert_eq!(format!("{OCI_LAYER}{}", suffix(compression)), expected);
        }
    }
}
