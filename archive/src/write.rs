//! Writes an archive: an OCI layout, for Docker with a `manifest.json` that points into it.
//!
//! That is what Docker writes since version 25, except that blobs are the original ones: Docker inflates the layers,
//! unless it keeps them in containerd. Who loads such archives takes compressed layers all the same: Docker and
//! containers/image look at their first bytes, containerd at the media type. Only zstd came late, with Docker 23; before,
//! it takes them for plain tar and says `unexpected EOF`.
//!
//! There is no `repositories`: nobody needs it who knows `manifest.json`, which Docker does since 1.10.
//!
//! Podman takes an archive for an OCI layout first, and of that a single descriptor only (seen with 4.3). With several
//! names it goes on to `manifest.json`, so it loads them in Docker's form only.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};

use layerstore_oci::media_type::{self, layout_path};
use layerstore_oci::{
    Algorithm, Descriptor, DiffId, Digest, ErrorKind, Index, Reference, VerifiedReader, VerifyError,
};
use layerstore_tar as tar;
use serde::Serialize;

use crate::image::{IMAGE_NAME, INDEX, MANIFEST, OCI_LAYOUT, REF_NAME};

const BUFFER: usize = 256 << 10;

/// Who is to read the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveForm {
    /// Docker, and everybody else: an OCI layout with a `manifest.json`.
    #[default]
    Docker,
    /// Those who read OCI layouts.
    Oci,
}

/// A manifest or index that the archive offers, under its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedDescriptor {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// Its names, with tags; none if it is known by its digest only.
    pub names: Vec<Reference>,
}

/// An image as `manifest.json` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerEntry {
    /// The config.
    pub config: Digest,
    /// The layers, lowest first.
    pub layers: Vec<Digest>,
    /// Foreign layers, for whom the place where they come from is more than their bytes.
    pub layer_sources: BTreeMap<DiffId, Descriptor>,
    /// The image's names, with tags; may be none.
    pub names: Vec<Reference>,
}

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The stream below failed.
    #[error("cannot write the archive")]
    Output {
        /// What it said.
        source: io::Error,
    },
    /// A blob is not what it should be, or cannot be read.
    #[error(transparent)]
    Blob(VerifyError),
    /// What is to be written does not fit the format.
    #[error("cannot write the archive")]
    Format {
        /// The reason.
        source: tar::Error,
    },
}

impl WriteError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Output { source } => ErrorKind::of_io(source),
            Self::Blob(error) => error.kind(),
            Self::Format { .. } => ErrorKind::InvalidInput,
        }
    }
}

impl From<tar::Error> for WriteError {
    fn from(error: tar::Error) -> Self {
        match error {
            tar::Error::Io { source, .. } => Self::Output { source },
            source => Self::Format { source },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RawEntry<'a> {
    config: String,
    /// `null` without names, as Docker writes it.
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layer_sources: &'a BTreeMap<DiffId, Descriptor>,
}

/// Writes one archive, in the order in which it is told: the same calls give the same bytes.
#[derive(Debug)]
#[must_use = "an archive is complete only after `finish`"]
pub struct ArchiveWriter<W: Write> {
    tar: tar::Writer<BufWriter<W>>,
    /// Whose directory has been written.
    algorithms: Vec<Algorithm>,
    buffer: Vec<u8>,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive with all that says what is in it. `docker` is for `manifest.json`, none to have none.
    ///
    /// These documents come first, so that who reads the archive as a stream knows at once what the rest is; those
    /// who search a file for them (containers/image does so for each) find them without going through it. Whoever
    /// writes the manifests and configs next, and then the layers from the lowest up, makes the most of that.
    pub fn begin(
        out: W,
        images: &[NamedDescriptor],
        docker: Option<&[DockerEntry]>,
    ) -> Result<Self, WriteError> {
        let mut writer = Self {
            tar: tar::Writer::new(BufWriter::with_capacity(BUFFER, out)),
            algorithms: Vec::new(),
            buffer: vec![0; BUFFER],
        };
        writer.file(OCI_LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        writer.file(INDEX, &index(images).to_bytes())?;
        if let Some(entries) = docker {
            let entries: Vec<RawEntry<'_>> = entries.iter().map(raw_entry).collect();
            // Maps with string keys and plain values: serialising cannot fail.
            writer.file(MANIFEST, &serde_json::to_vec(&entries).unwrap_or_default())?;
        }
        writer.tar.append_entry(&tar::Entry::directory(b"blobs/"))?;
        Ok(writer)
    }

    /// Writes a blob of `size` bytes. Fails with [`WriteError::Blob`] if `data` is not what `digest` says; then the
    /// archive is of no use. Each blob is to be written once.
    ///
    /// `progress` is told how many bytes have been written, now and then.
    pub fn blob(
        &mut self,
        digest: &Digest,
        size: u64,
        data: impl Read,
        mut progress: impl FnMut(u64),
    ) -> Result<(), WriteError> {
        let algorithm = digest.algorithm();
        if !self.algorithms.contains(&algorithm) {
            self.algorithms.push(algorithm);
            self.tar.append_entry(&tar::Entry::directory(format!("blobs/{algorithm}/").as_bytes()))?;
        }
        let path = layout_path(digest);
        self.tar.append_entry(&tar::Entry::regular(path.as_bytes(), size))?;
        let mut data = VerifiedReader::new(data, digest.clone(), size);
        loop {
            match data.read(&mut self.buffer) {
                // Only what matches its digest ends.
                Ok(0) => break,
                Ok(count) => {
                    self.tar.write_data(&self.buffer[..count])?;
                    progress(data.bytes_read());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(WriteError::Blob(verify_error(error, digest))),
            }
        }
        Ok(self.tar.finish_entry()?)
    }

    /// Ends the archive and returns the stream.
    pub fn finish(self) -> Result<W, WriteError> {
        let buffered = self.tar.finish()?;
        buffered.into_inner().map_err(|error| WriteError::Output { source: error.into_error() })
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        Ok(self.tar.append(&tar::Entry::regular(name.as_bytes(), bytes.len() as u64), bytes)?)
    }
}

/// What a failed read of a [`VerifiedReader`] was about.
fn verify_error(error: io::Error, digest: &Digest) -> VerifyError {
    match error.downcast::<VerifyError>() {
        Ok(error) => error,
        Err(error) => VerifyError::Read { digest: digest.clone(), source: error.into() },
    }
}

/// A descriptor for each name, as containerd and Docker write it. containerd takes the full name, and for the tag
/// alone would make a name up; podman takes the full name since version 4; skopeo looks images up by the tag
/// (`oci-archive:FILE:TAG`), those with OCI's media types only (seen with 1.9).
fn index(images: &[NamedDescriptor]) -> Index {
    let mut manifests = Vec::new();
    for image in images {
        let mut add = |annotations| manifests.push(Descriptor { annotations, ..image.descriptor.clone() });
        for name in &image.names {
            let tag = name.tag().map(|tag| (REF_NAME.to_owned(), tag.to_owned()));
            add([(IMAGE_NAME.to_owned(), name.to_string())].into_iter().chain(tag).collect());
        }
        if image.names.is_empty() {
            add(BTreeMap::new());
        }
    }
    Index { media_type: media_type::OCI_INDEX.to_owned(), manifests, annotations: BTreeMap::new() }
}

/// Names are in full, as podman writes them: it would take Docker's `app:1` for `localhost/app:1`.
fn raw_entry(entry: &DockerEntry) -> RawEntry<'_> {
    let names: Vec<String> = entry.names.iter().map(ToString::to_string).collect();
    RawEntry {
        config: layout_path(&entry.config),
        repo_tags: (!names.is_empty()).then_some(names),
        layers: entry.layers.iter().map(layout_path).collect(),
        layer_sources: &entry.layer_sources,
    }
}

#[cfg(test)]
mod tests;
