//! The side that unpacks.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, PoisonError};

use layerstore_oci::{Digest, ErrorKind};
use layerstore_store::{Fate, NewBlob, NewTree, Received, Usage};
use layerstore_unpack::PrivateUmask;

use super::feeder::kept;
use super::{Failure, Finished, Job, JobSource, Layer, Ready, Shared, Work};
use crate::error::{Error, Result};
use crate::event::Event;

impl Shared<'_> {
    pub(super) fn unpack_all(&self, queue: &Mutex<Receiver<Job>>, ready: &Sender<Ready>) {
        let umask = PrivateUmask::enter();
        if self.policy.sandbox {
            let directories = self.session.directories();
            let directories = directories.each_ref().map(PathBuf::as_path);
            if let Err(source) = layerstore_unpack::confine(&directories) {
                // The queue is still emptied: the feeder waits for places in it.
                self.fail(Error::Sandbox { source });
            }
        }
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = next else { return };
            if self.stopped() {
                continue;
            }
            match self.work(job, &umask) {
                Ok(Some(done)) => ready.send(done).unwrap_or_default(),
                Ok(None) => {}
                Err(error) => self.fail(error),
            }
        }
    }

    /// `None` if the layer was given up because of a failure that is reported by another.
    fn work(&self, job: Job, umask: &PrivateUmask) -> Result<Option<Ready>, Failure> {
        let Job { layer, work, source, claims, slot } = job;
        let (reader, size, origin): (Box<dyn Read + Send>, _, _) = match source {
            JobSource::Ingest { reader, received } => {
                let fate = reader.fate();
                (Box::new(reader), layer.size, Origin::Ingest(received, fate))
            }
            JobSource::Blob { file, digest, size } => {
                (Box::new(file), Some(size), Origin::Blob(digest, size))
            }
        };
        let counted = Counted { inner: reader, shared: self, index: layer.index, done: 0, total: size };
        let directory = match work {
            Work::Unpack | Work::Try => Some(self.session.tree_directory()?),
            Work::Verify | Work::Keep => None,
        };
        let result = match &directory {
            Some(directory) => {
                layerstore_unpack::unpack(counted, size, &directory.diff(), self.options, umask)
                    .map(|(unpacked, stream)| (Some(unpacked), stream))
            }
            None => {
                layerstore_unpack::digest(counted, size, &self.options.limits).map(|stream| (None, stream))
            }
        };
        if self.stopped() {
            return Ok(None);
        }
        let result = result.map_err(|source| Error::Unpack { layer: layer.name.to_string(), source });
        let blob = match origin {
            Origin::Blob(digest, size) => Blob::Stored(digest, size),
            // The feeder says why, or begins again.
            Origin::Ingest(_, fate) if result.is_err() && fate.is_given_up() => return Ok(None),
            Origin::Ingest(received, _) => {
                // Damage of the content has its cause in the blob, if that is not what its digest says: wait
                // for the verdict. A full disk is a failure of its own.
                if let Err(Error::Unpack { source, .. }) = &result
                    && !is_about_content(source)
                {
                    return Ok(result.map(|_| None)?);
                }
                match received.recv() {
                    Ok(received) => Blob::Received(received),
                    Err(_) => return Ok(None),
                }
            }
        };
        let (unpacked, stream) = match result {
            Ok(done) => done,
            Err(error) => match blob {
                // Whatever it is, it is no layer; if an image says it is one, this comes up again.
                // The layer may be as it should be, and the disk not.
                Blob::Stored(digest, _) => return Err(Failure { error, suspect: Some(digest.into()) }),
                Blob::Received(received) if work == Work::Try => {
                    return Ok(Some(kept(layer, received, claims, slot)));
                }
                Blob::Received(_) => return Err(error.into()),
            },
        };
        if let Some(expected) = layer.diff_id.as_ref().filter(|expected| **expected != stream.diff_id) {
            let error = Error::DiffIdMismatch {
                layer: layer.name.to_string(),
                expected: expected.clone(),
                actual: stream.diff_id,
            };
            let suspect = match blob {
                Blob::Stored(digest, _) => Some(digest.into()),
                Blob::Received(_) => None,
            };
            return Err(Failure { error, suspect });
        }
        if let Some(unpacked) = &unpacked {
            self.report(&layer, unpacked);
        }
        let diff_id = stream.diff_id;
        let tree = directory.zip(unpacked).map(|(directory, unpacked)| NewTree {
            whiteouts: Some(unpacked.whiteouts),
            directory,
            diff_id: diff_id.clone(),
            usage: Usage {
                bytes: unpacked.usage.bytes,
                allocated: unpacked.usage.allocated,
                inodes: unpacked.usage.inodes,
            },
            implied: unpacked.implied,
            links: unpacked.lower_links.into_iter().map(|link| (link.path, link.target)).collect(),
        });
        let (digest, size, blob, known) = match blob {
            Blob::Received(received) => {
                let (digest, size) = (received.digest().clone(), received.size());
                let media_type = layer.media_type;
                let blob = NewBlob { received, media_type, diff_id: Some(diff_id.clone()) };
                (digest, size, Some(blob), None)
            }
            Blob::Stored(digest, size) => (digest.clone(), size, None, Some((digest, diff_id.clone()))),
        };
        Ok(Some(Ready {
            index: layer.index,
            name: layer.name,
            finished: Finished { digest, size, compression: Some(stream.compression) },
            blob,
            tree,
            diff_id: known,
            claims,
            slot,
        }))
    }

    fn report(&self, layer: &Layer, unpacked: &layerstore_unpack::Unpacked) {
        (self.listener)(Event::Unpacked {
            index: layer.index,
            name: layer.name.clone(),
            privileged: unpacked.privileged.clone(),
            devices: unpacked.devices,
        });
        let lost = unpacked.lost;
        for (count, what) in [
            (lost.owners, "owners could not be set without privilege"),
            (lost.xattrs, "extended attributes are not supported here"),
            (lost.devices, "device nodes could not be made"),
        ] {
            if count > 0 {
                (self.listener)(Event::Note(format!("layer {}: {count} {what}", layer.name)));
            }
        }
    }
}

/// Whether the layer is to blame, rather than the disk.
fn is_about_content(error: &layerstore_unpack::Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// The blob of a layer that has been read to its end.
enum Blob {
    Received(Received),
    Stored(Digest, u64),
}

enum Origin {
    Ingest(Receiver<Received>, Fate),
    Blob(Digest, u64),
}

/// Tells how far a layer is, and ends it when everything stops.
struct Counted<'a> {
    inner: Box<dyn Read + Send>,
    shared: &'a Shared<'a>,
    index: usize,
    done: u64,
    total: Option<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.shared.stopped() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "stopped"));
        }
        let count = self.inner.read(buffer)?;
        self.done += count as u64;
        (self.shared.listener)(Event::Progress { index: self.index, done: self.done, total: self.total });
        Ok(count)
    }
}
