//! From what a person types to an image.

use layerstore_oci::{Digest, Platform, Reference};
use layerstore_store::{ImageInfo, ImageRow, LOCAL, Store};

use crate::Layerstore;
use crate::error::{Error, Result};

/// The shortest prefix of an image ID that is taken for one.
const MIN_PREFIX: usize = 4;

/// An image that was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The name's target: a manifest or index.
    pub(crate) target: Digest,
    /// All names with this target.
    pub(crate) names: Vec<String>,
    /// The name by which it was found, if not by an ID.
    pub(crate) by_name: Option<String>,
    /// The image, of the platform that suits this machine best; `None` for an artifact.
    pub(crate) image: Option<ImageInfo>,
    /// When the name by which it was found got its target.
    pub(crate) updated_at: i64,
    /// When it was last pulled.
    pub(crate) pulled_at: Option<i64>,
    /// Those of its names that are pinned.
    pub(crate) pinned: Vec<String>,
}

impl Found {
    /// The image ID, or the target of an artifact.
    pub(crate) fn id(&self) -> &Digest {
        self.image.as_ref().map_or(&self.target, |image| &image.config)
    }
}

/// Where images are looked up: the names of one owner with what they lead to, in the order of the names, as the store
/// lists them.
pub(crate) trait ImageRows {
    /// Those that have this name, or the same target as it.
    fn named(&self, name: &str) -> Result<Vec<ImageRow>>;
    /// Those that lead to a digest whose hexadecimal part begins like this.
    fn by_digest(&self, hex: &str) -> Result<Vec<ImageRow>>;
}

impl ImageRows for Store {
    fn named(&self, name: &str) -> Result<Vec<ImageRow>> {
        Ok(self.images_named(LOCAL, name)?)
    }

    fn by_digest(&self, hex: &str) -> Result<Vec<ImageRow>> {
        Ok(self.images_by_digest(LOCAL, hex)?)
    }
}

impl Layerstore {
    /// Finds an image by name, by name and digest, by ID, or by a prefix of an ID.
    pub(crate) fn find(&self, name: &str) -> Result<Found> {
        find_in(&self.store, name)
    }
}

/// The same among given rows.
pub(crate) fn find_in(images: &impl ImageRows, name: &str) -> Result<Found> {
    // Whatever names there are, this is an ID.
    if let Ok(digest) = name.parse::<Digest>() {
        let rows = images.by_digest(&digest.hex())?;
        let row = by_id(&rows, &digest.to_string())?;
        return row
            .map(|row| found(&rows, row, false))
            .ok_or_else(|| Error::NoImage { name: name.to_owned() });
    }
    let reference: Result<Reference, _> = name.parse();
    if let Ok(reference) = &reference {
        // Nearly always it is a name as it is stored.
        let exact = reference.to_string();
        let rows = images.named(&exact)?;
        if let Some(row) = rows.iter().find(|row| row.name == exact) {
            return Ok(found(&rows, row, true));
        }
        if let Some(digest) = reference.digest() {
            let rows = images.by_digest(&digest.hex())?;
            if let Some(row) = by_name_and_digest(&rows, reference, digest) {
                return Ok(found(&rows, row, true));
            }
        }
    }
    if let Some(prefix) = id_prefix(name) {
        let rows = images.by_digest(prefix)?;
        if let Some(row) = by_id(&rows, name)? {
            return Ok(found(&rows, row, false));
        }
    }
    match reference {
        Err(error) if !is_hex(name.strip_prefix("sha256:").unwrap_or(name)) => Err(error.into()),
        _ => Err(Error::NoImage { name: name.to_owned() }),
    }
}

/// A stored name as a reference; `None` for the digest under which an image without a name is kept.
pub(crate) fn named(name: &str) -> Option<Reference> {
    // `sha256:…` would pass for the repository `sha256`; stored references begin with their domain.
    if name.parse::<Digest>().is_ok() { None } else { name.parse().ok() }
}

/// A stored name as people write it.
pub(crate) fn shown_name(name: &str) -> String {
    named(name).map_or_else(|| name.to_owned(), |reference| reference.familiar())
}

/// Refuses names that would be taken for an image ID, as Docker does.
pub(crate) fn refuse_reserved(name: &Reference) -> Result<()> {
    if name.domain() == "docker.io" && ["library/sha256", "library/sha512"].contains(&name.path()) {
        return Err(Error::ReservedName { name: name.familiar() });
    }
    Ok(())
}

fn by_name_and_digest<'a>(
    rows: &'a [ImageRow],
    reference: &Reference,
    digest: &Digest,
) -> Option<&'a ImageRow> {
    let repository = reference.repository();
    let tag = reference.tag();
    rows.iter().find(|row| {
        let has_digest = row.target == *digest || row.image.as_ref().is_some_and(|i| i.manifest == *digest);
        has_digest
            && named(&row.name).is_some_and(|named| {
                named.repository() == repository && (tag.is_none() || tag == named.tag())
            })
    })
}

/// The hexadecimal digits, if they are enough for an ID.
fn id_prefix(text: &str) -> Option<&str> {
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    (prefix.len() >= MIN_PREFIX && is_hex(prefix)).then_some(prefix)
}

/// Digests are compared by their hexadecimal part; all that can name an image count.
fn by_id<'a>(rows: &'a [ImageRow], text: &str) -> Result<Option<&'a ImageRow>> {
    let Some(prefix) = id_prefix(text) else { return Ok(None) };
    let mut matches: Vec<&ImageRow> = rows
        .iter()
        .filter(|row| {
            let image = row.image.iter().flat_map(|image| [&image.config, &image.manifest]);
            image.chain([&row.target]).any(|digest| digest.starts_with(prefix))
        })
        .collect();
    let id = |row: &ImageRow| row.image.as_ref().map_or(row.target.clone(), |image| image.config.clone());
    let mut ids: Vec<Digest> = matches.iter().map(|row| id(row)).collect();
    ids.sort();
    ids.dedup();
    // Platforms of one index have IDs of their own, but one name.
    matches.dedup_by(|a, b| a.target == b.target);
    if ids.len() > 1 && matches.len() > 1 {
        return Err(Error::Ambiguous { prefix: text.to_owned(), images: ids });
    }
    Ok(matches.first().copied())
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn found(rows: &[ImageRow], row: &ImageRow, by_name: bool) -> Found {
    let mut names: Vec<String> =
        rows.iter().filter(|other| other.target == row.target).map(|other| other.name.clone()).collect();
    names.dedup();
    let same = rows.iter().filter(|other| other.target == row.target);
    let mut pinned: Vec<String> = same.filter(|other| other.pinned).map(|other| other.name.clone()).collect();
    pinned.dedup();
    Found {
        target: row.target.clone(),
        names,
        pinned,
        pulled_at: row.pulled_at,
        by_name: by_name.then(|| row.name.clone()),
        image: best(rows.iter().filter(|other| other.name == row.name)).cloned(),
        updated_at: row.updated_at,
    }
}

/// Of the images of one name the one for this machine, else the first.
pub(crate) fn best<'a>(rows: impl Iterator<Item = &'a ImageRow>) -> Option<&'a ImageInfo> {
    let images: Vec<&ImageInfo> = rows.filter_map(|row| row.image.as_ref()).collect();
    let platforms: Vec<Option<Platform>> = images.iter().map(|image| image.platform.parse().ok()).collect();
    let chosen = Platform::host().select(platforms.iter().map(Option::as_ref)).unwrap_or(0);
    images.get(chosen).copied()
}
