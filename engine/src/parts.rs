//! What belongs to an image that leaves the store, to a registry or into an archive.

use std::collections::HashSet;

use layerstore_oci::{Descriptor, Digest, Document, LayerKind, MAX_DOCUMENT_BYTES, Platform, media_type};
use layerstore_store::Session;

use crate::Layerstore;
use crate::error::{Error, Result};

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 8;

/// What is wanted of an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Only this platform.
    pub(crate) platform: Option<&'a Platform>,
    /// Only this image: the digest of its manifest or its config, or the first digits. Ignored where it is none of
    /// those.
    pub(crate) id: Option<&'a str>,
    /// What becomes of layers that are to be had elsewhere.
    pub(crate) foreign: Foreign,
    /// What happens to the image, for messages: `pushed`.
    pub(crate) done: &'static str,
}

/// What becomes of layers that their manifest says are to be had elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// They stay here.
    Left,
    /// They go along if they are here.
    IfPresent,
    /// They are needed like all others.
    Needed,
}

/// A manifest or index.
#[derive(Debug)]
pub(crate) struct OutgoingDocument {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// All that belongs to an image, each part before what names it.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// Configs and layers.
    pub(crate) blobs: Vec<Descriptor>,
    pub(crate) documents: Vec<OutgoingDocument>,
    seen: HashSet<Digest>,
    /// What an index names and the store does not have: its platform, or its digest.
    missing: Vec<String>,
    /// Images that are here.
    pub(crate) images: Vec<PartImage>,
    /// How many layers stay here because they are to be had elsewhere.
    pub(crate) foreign: usize,
}

/// An image among the parts.
#[derive(Debug, Clone)]
pub(crate) struct PartImage {
    pub(crate) manifest: Digest,
    config: Digest,
    pub(crate) platform: Option<Platform>,
}

impl Layerstore {
    /// What is to leave of `target`, which was found as `name`: all of it if it is all here; of an image for several
    /// platforms of which only one is here, this one; or what is wanted.
    pub(crate) fn outgoing(
        &self,
        name: &str,
        target: &Digest,
        wanted: Wanted<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Parts> {
        let mut parts = Parts::default();
        self.gather(target, None, wanted, 0, &mut parts)?;
        let is_index = parts.documents.last().is_some_and(|top| media_type::is_index(&top.media_type));
        let is_top = |id: &&str| target.starts_with(id);
        let id = wanted.id.filter(|id| !is_top(id) && parts.images.iter().any(|image| image.is(id)));
        let images: Vec<&PartImage> =
            parts.images.iter().filter(|image| id.is_none_or(|id| image.is(id))).collect();
        let platforms = || images.iter().map(|image| image.platform.as_ref());
        let chosen = match wanted.platform {
            Some(platform) => match platform.select(platforms()) {
                Some(number) => Some(number),
                None => {
                    let present = platforms().flatten().cloned().collect();
                    return Err(Error::NoPlatform { wanted: platform.clone().into(), present });
                }
            },
            None if id.is_some() || (!parts.missing.is_empty() && images.len() == 1) => Some(0),
            None => None,
        };
        let Some(image) = chosen.filter(|_| is_index).map(|number| images[number]) else {
            if parts.missing.is_empty() {
                return Ok(parts);
            }
            let present = platforms().flatten().map(ToString::to_string).collect();
            return Err(Error::Incomplete { name: name.to_owned(), missing: parts.missing, present });
        };
        if wanted.platform.is_none() && id.is_none() {
            let platform = image.platform.as_ref();
            let platform = platform.map_or_else(|| image.manifest.to_string(), ToString::to_string);
            notes
                .push(format!("only {platform} of the image is here: its manifest is {} alone", wanted.done));
        }
        let manifest = image.manifest.clone();
        let platform = image.platform.clone();
        let mut alone = Parts::default();
        self.gather(&manifest, platform.as_ref(), wanted, 0, &mut alone)?;
        Ok(alone)
    }

    /// All of `target` that is here.
    pub(crate) fn everything(&self, target: &Digest, wanted: Wanted<'_>) -> Result<Parts> {
        let mut parts = Parts::default();
        self.gather(target, None, wanted, 0, &mut parts)?;
        Ok(parts)
    }

    /// Adds a manifest or index and all that it leads to.
    fn gather(
        &self,
        digest: &Digest,
        platform: Option<&Platform>,
        wanted: Wanted<'_>,
        depth: usize,
        parts: &mut Parts,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep { digest: digest.clone() });
        }
        if !parts.seen.insert(digest.clone()) {
            return Ok(());
        }
        let bytes = self.store.read_blob(digest, MAX_DOCUMENT_BYTES)?;
        let document = Document::parse(&bytes, None).map_err(|source| Error::Document {
            what: "manifest or index",
            digest: digest.to_string(),
            source,
        })?;
        let media_type = document.media_type().to_owned();
        match document {
            Document::Index(index) => {
                for child in &index.manifests {
                    if self.store.blob(&child.digest)?.is_some() {
                        self.gather(&child.digest, child.platform.as_ref(), wanted, depth + 1, parts)?;
                    } else {
                        let known = child.platform.as_ref().filter(|platform| platform.os != "unknown");
                        parts
                            .missing
                            .push(known.map_or_else(|| child.digest.to_string(), ToString::to_string));
                    }
                }
            }
            Document::Manifest(manifest) => {
                if media_type::is_config(&manifest.config.media_type)
                    && platform.is_none_or(|platform| platform.os != "unknown")
                {
                    // A manifest that no index names says it in its config only.
                    let said = || self.config(&manifest.config.digest).ok()?.platform;
                    parts.images.push(PartImage {
                        manifest: digest.clone(),
                        config: manifest.config.digest.clone(),
                        platform: platform.cloned().or_else(said),
                    });
                }
                for blob in [manifest.config].into_iter().chain(manifest.layers) {
                    let foreign =
                        matches!(LayerKind::of(&blob.media_type), LayerKind::Layer { foreign: true, .. });
                    let elsewhere = foreign && !blob.urls.is_empty();
                    let left = match wanted.foreign {
                        Foreign::Left => elsewhere,
                        Foreign::IfPresent => elsewhere && self.store.blob(&blob.digest)?.is_none(),
                        Foreign::Needed => false,
                    };
                    if left {
                        parts.foreign += 1;
                    } else if parts.seen.insert(blob.digest.clone()) {
                        parts.blobs.push(blob);
                    }
                }
            }
        }
        parts.documents.push(OutgoingDocument { digest: digest.clone(), media_type, bytes });
        Ok(())
    }

    /// Puts blobs under the lease of `session`, so that they stay whatever others remove meanwhile, and returns their
    /// lengths. Fails if one is not here, or its file is not.
    pub(crate) fn hold<'d>(
        &self,
        session: &Session,
        digests: impl IntoIterator<Item = &'d Digest>,
    ) -> Result<Vec<u64>> {
        let wanted: Vec<_> = digests.into_iter().map(|digest| (digest.clone(), None)).collect();
        let found = self.store.lease_layers(session, &wanted)?;
        let mut sizes = Vec::with_capacity(found.len());
        let mut absent = Vec::new();
        for (presence, (digest, _)) in found.into_iter().zip(wanted) {
            match presence.blob {
                Some(blob) => sizes.push(blob.size),
                // Known, but gone from the disk or of another length.
                None if self.store.blob(&digest)?.is_some() => {
                    let reason = "its file is not whole, pull or load the image again".to_owned();
                    return Err(layerstore_store::Error::DamagedBlob { digest, reason }.into());
                }
                None => absent.push(digest),
            }
        }
        match absent.len() {
            0 => Ok(sizes),
            1 => Err(layerstore_store::Error::NoBlob { digest: absent.remove(0) }.into()),
            _ => Err(Error::NoBlobs { digests: absent }),
        }
    }

    /// Looks whether it is the content of a blob that made an operation fail with it; then the blob is thrown away,
    /// so that the next pull or load puts it back, and the result is the error that says so.
    pub(crate) fn blame(&self, digest: &Digest) -> Result<Option<Error>> {
        if !self.store.discard_if_damaged(digest)? {
            return Ok(None);
        }
        let reason = "it has been removed, pull or load the image again".to_owned();
        Ok(Some(layerstore_store::Error::DamagedBlob { digest: digest.clone(), reason }.into()))
    }
}

impl PartImage {
    fn is(&self, id: &str) -> bool {
        self.manifest.starts_with(id) || self.config.starts_with(id)
    }
}
