//! Reading blobs back.

use std::fs::File;
use std::io::{self, Read as _};

use layerstore_oci::{DiffId, Digest, Hasher};
use rusqlite::{Connection, OptionalExtension as _};

use crate::error::{DbContext as _, Error, IoContext as _, Result};
use crate::lock::Key;
use crate::store::Store;

/// What the database says of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its length in bytes.
    pub size: u64,
    /// Bytes of the blocks of its file. Where nobody has counted, its length in full blocks of 4096 bytes.
    pub allocated: u64,
    /// The media type under which it came.
    pub media_type: Option<String>,
    /// For a layer: the digest of its uncompressed form, as computed by this store.
    pub diff_id: Option<DiffId>,
}

impl Store {
    /// What is known of a blob, or `None` where there is none.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        self.database().read("look up a blob", |db| find(db, digest))
    }

    /// The smallest blob that holds the layer `diff_id`, compressed or not.
    pub fn blob_of_layer(&self, diff_id: &DiffId) -> Result<Option<Digest>> {
        let action = "look up a layer's blob";
        self.database().read(action, |db| {
            let found: Option<String> = db
                .prepare_cached("SELECT digest FROM blob WHERE diff_id = ?1 ORDER BY size, digest LIMIT 1")
                .and_then(|mut statement| {
                    statement.query_row([diff_id.to_string()], |row| row.get(0)).optional()
                })
                .db(action)?;
            found.as_deref().map(parse_digest).transpose()
        })
    }

    /// Opens a blob. The content is not verified.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.layout().blob(digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoBlob { digest: digest.clone() })
            }
            other => other.context("open", path),
        }
    }

    /// The length of a blob's file, if it is there.
    pub(crate) fn blob_file_size(&self, digest: &Digest) -> Option<u64> {
        self.layout().blob(digest).metadata().ok().map(|metadata| metadata.len())
    }

    /// Reads a blob to its end, and throws its file away if it is not what its name says, so that the next
    /// command which brings the blob puts it back. Tells whether it was damaged.
    pub fn discard_if_damaged(&self, digest: &Digest) -> Result<bool> {
        let path = self.layout().blob(digest);
        let mut file = self.open_blob(digest)?;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).context("read", &path)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        if hasher.finish() == *digest {
            return Ok(false);
        }
        let _claim = self.claim(&Key::Sweep)?;
        self.throw_away(&path)?;
        Ok(true)
    }

    /// The whole of a small blob, verified. One that is longer than `limit` bytes is refused.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.layout().blob(digest);
        let mut bytes = Vec::new();
        self.open_blob(digest)?.take(limit + 1).read_to_end(&mut bytes).context("read", &path)?;
        if bytes.len() as u64 > limit {
            let reason = format!("longer than {limit} bytes");
            return Err(Error::DamagedBlob { digest: digest.clone(), reason });
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual == *digest {
            Ok(bytes)
        } else {
            let reason = format!("its content has the digest {actual}");
            Err(Error::DamagedBlob { digest: digest.clone(), reason })
        }
    }
}

pub(crate) fn find(db: &Connection, digest: &Digest) -> Result<Option<BlobInfo>> {
    let row = db
        .prepare_cached(
            "SELECT size, media_type, diff_id, coalesce(allocated, (size + 4095) / 4096 * 4096) FROM blob \
             WHERE digest = ?1",
        )
        .and_then(|mut statement| {
            statement
                .query_row([digest.to_string()], |row| {
                    Ok((row.get::<_, u64>(0)?, row.get(1)?, row.get::<_, Option<String>>(2)?, row.get(3)?))
                })
                .optional()
        })
        .db("look up a blob")?;
    row.map(|(size, media_type, diff_id, allocated)| {
        let diff_id = diff_id.as_deref().map(parse_digest).transpose()?;
        Ok(BlobInfo { size, allocated, media_type, diff_id })
    })
    .transpose()
}

/// A digest, diff ID or chain ID out of the database.
pub(crate) fn parse_digest<T: From<Digest>>(text: &str) -> Result<T> {
    text.parse::<Digest>()
        .map(T::from)
        .map_err(|_| Error::InvalidRow { what: "digest", value: text.to_owned() })
}
