//! Composes layers: tar streams with any entry, honest or hostile, compressed or not.

use std::io::{self, Read, Write};

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
pub use tar::EntryType;

/// How a layer's blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// One gzip member.
    Gzip,
    /// One Zstandard frame.
    Zstd,
}

impl Compression {
    /// The OCI media type of a layer compressed like this.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// Compresses `bytes` as a whole, as people do with archives.
    pub fn compress(self, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(self);
        encoder.write_all(bytes).unwrap();
        encoder.finish()
    }
}

/// A finished layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Digest of the uncompressed tar.
    pub diff_id: String,
    /// The bytes as they are stored and sent.
    pub blob: Vec<u8>,
    /// What a manifest calls them.
    pub media_type: String,
}

impl Layer {
    /// Digest of the blob.
    pub fn digest(&self) -> String {
        crate::digest(&self.blob)
    }
}

/// One tar entry with everything that can be said about it. Defaults: owner 0:0, mode 0644 (0755 for a
/// directory), modified 2023-11-14.
#[derive(Clone, Debug)]
pub struct Entry {
    path: Vec<u8>,
    kind: EntryType,
    data: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
    mtime: (u64, u32),
    device: (u32, u32),
    pax: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// An entry of any type, even one that no file has.
    pub fn new(kind: EntryType, path: impl AsRef<[u8]>) -> Self {
        let mode = if kind == EntryType::Directory { 0o755 } else { 0o644 };
        Self {
            path: path.as_ref().to_vec(),
            kind,
            data: Vec::new(),
            link: Vec::new(),
            mode,
            owner: (0, 0),
            mtime: (1_700_000_000, 0),
            device: (0, 0),
            pax: Vec::new(),
        }
    }

    /// A regular file.
    pub fn file(path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self { data: data.as_ref().to_vec(), ..Self::new(EntryType::Regular, path) }
    }

    /// A directory.
    pub fn dir(path: impl AsRef<[u8]>) -> Self {
        Self::new(EntryType::Directory, path)
    }

    /// A symbolic link to `target`.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), mode: 0o777, ..Self::new(EntryType::Symlink, path) }
    }

    /// A hard link to the entry called `target`.
    pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(EntryType::Link, path) }
    }

    /// A character device.
    pub fn device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(EntryType::Char, path) }
    }

    /// Permission, set-ID and sticky bits.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Owner and group. Values beyond the header field are written as PAX records.
    #[must_use]
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self { owner: (uid, gid), ..self }
    }

    /// Seconds since 1970 and nanoseconds.
    #[must_use]
    pub fn mtime(self, seconds: u64, nanoseconds: u32) -> Self {
        Self { mtime: (seconds, nanoseconds), ..self }
    }

    /// An extended attribute.
    #[must_use]
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// A PAX record as it stands.
    #[must_use]
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    fn header(&mut self, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        if self.path.len() > 100 {
            self.pax.push(("path".to_owned(), self.path.clone()));
        }
        if self.link.len() > 100 {
            self.pax.push(("linkpath".to_owned(), self.link.clone()));
        }
        for (key, id) in [("uid", self.owner.0), ("gid", self.owner.1)] {
            if id > 0o777_7777 {
                self.pax.push((key.to_owned(), id.to_string().into_bytes()));
            }
        }
        if self.mtime.1 != 0 {
            let value = format!("{}.{:09}", self.mtime.0, self.mtime.1);
            self.pax.push(("mtime".to_owned(), value.into_bytes()));
        }
        // Written as bytes: the setters of `tar` refuse the absolute and dotted names that hostile layers use.
        let old = header.as_old_mut();
        fill(&mut old.name, &self.path);
        fill(&mut old.linkname, &self.link);
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0 & 0o777_7777);
        header.set_gid(self.owner.1 & 0o777_7777);
        header.set_mtime(self.mtime.0);
        header.set_device_major(self.device.0).unwrap();
        header.set_device_minor(self.device.1).unwrap();
        header.set_size(size);
        header.set_cksum();
        header
    }
}

fn fill(field: &mut [u8], value: &[u8]) {
    let n = value.len().min(field.len());
    field[..n].copy_from_slice(&value[..n]);
}

/// Writes a layer entry by entry. Only the compressed bytes are kept, so a layer may be large.
pub struct LayerBuilder {
    tar: tar::Builder<Hashing>,
    compression: Compression,
}

impl LayerBuilder {
    /// An empty layer to be compressed with `compression`.
    pub fn new(compression: Compression) -> Self {
        let sink = Hashing { hash: Sha256::new(), encoder: Encoder::new(compression) };
        Self { tar: tar::Builder::new(sink), compression }
    }

    /// An empty gzip layer.
    pub fn gzip() -> Self {
        Self::new(Compression::Gzip)
    }

    /// Appends an entry.
    #[must_use]
    pub fn entry(self, entry: Entry) -> Self {
        let data = entry.data.clone();
        self.stream(entry, data.len() as u64, &data[..])
    }

    /// Appends an entry whose `size` bytes come from `data`.
    #[must_use]
    pub fn stream(mut self, mut entry: Entry, size: u64, data: impl Read) -> Self {
        let header = entry.header(size);
        let pax = entry.pax.iter().map(|(key, value)| (key.as_str(), &value[..]));
        self.tar.append_pax_extensions(pax).unwrap();
        self.tar.append(&header, data).unwrap();
        self
    }

    /// Appends bytes that are not an entry, for archives that are not quite tar.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.tar.get_mut().write_all(bytes).unwrap();
        self
    }

    /// Appends a regular file.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        self.entry(Entry::file(path, data))
    }

    /// Appends a directory.
    #[must_use]
    pub fn dir(self, path: impl AsRef<[u8]>) -> Self {
        self.entry(Entry::dir(path))
    }

    /// Appends a symbolic link.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(Entry::symlink(path, target))
    }

    /// Appends a hard link.
    #[must_use]
    pub fn hard_link(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(Entry::hard_link(path, target))
    }

    /// Appends the whiteout that deletes `path` of the layers below.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
        let slash = if dir.is_empty() { "" } else { "/" };
        self.file(format!("{dir}{slash}.wh.{name}"), "")
    }

    /// Appends the marker that hides everything that the layers below have in `dir`.
    #[must_use]
    pub fn opaque(self, dir: &str) -> Self {
        self.file(format!("{dir}/.wh..wh..opq"), "")
    }

    /// Ends the archive.
    pub fn finish(self) -> Layer {
        let sink = self.tar.into_inner().unwrap();
        Layer {
            diff_id: format!("sha256:{}", crate::hex(&sink.hash.finalize())),
            blob: sink.encoder.finish(),
            media_type: self.compression.media_type().to_owned(),
        }
    }
}

struct Hashing {
    hash: Sha256,
    encoder: Encoder,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.encoder.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Encoder {
    None(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None(Vec::new()),
            Compression::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::fast())),
            Compression::Zstd => Self::Zstd(zstd::Encoder::new(Vec::new(), 1).unwrap()),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::None(bytes) => bytes,
            Self::Gzip(encoder) => encoder.finish().unwrap(),
            Self::Zstd(encoder) => encoder.finish().unwrap(),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
