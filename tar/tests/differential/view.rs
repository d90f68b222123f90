//! What a reader says about an archive, in a form that readers can be compared by.

use std::fmt;
use std::io::Read as _;

use layerstore_tar::{Entry, EntryKind, Error, Reader};

/// Content is compared of files up to this size.
const MOST: u64 = 1 << 20;

/// One entry. What a peer does not tell is `None`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    /// Without slashes at its end, which some drop.
    pub(crate) path: Vec<u8>,
    /// As `ls` prints it, `h` for a hard link; `?` for types that nobody knows.
    pub(crate) kind: char,
    /// Of regular files.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: i128,
    pub(crate) gid: i128,
    pub(crate) mtime: Time,
    /// Of links.
    pub(crate) link: Vec<u8>,
    pub(crate) device: (u64, u64),
    pub(crate) digest: Option<String>,
    pub(crate) owners: Option<(Vec<u8>, Vec<u8>)>,
    /// Sorted.
    pub(crate) xattrs: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Time {
    Exact(i64, u32),
    /// Python has floats.
    Float(f64),
    /// GNU tar lists what is before 1970 by its distance: -1.25 is not -2 and 0.75 but -1 and 0.25.
    Listed(i64, u32),
}

impl Time {
    #[expect(clippy::cast_precision_loss, reason = "that is what is compared")]
    fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(seconds, nanoseconds), Self::Float(float)) => {
                let ours = *seconds as f64 + f64::from(*nanoseconds) / 1e9;
                (ours - float).abs() <= ours.abs() * f64::EPSILON + 1e-8
            }
            (Self::Exact(seconds @ ..0, nanoseconds @ 1..), Self::Listed(listed, fraction)) => {
                (seconds + 1, 1_000_000_000 - nanoseconds) == (*listed, *fraction)
            }
            (Self::Exact(seconds, nanoseconds), Self::Listed(listed, fraction)) => {
                (seconds, nanoseconds) == (listed, fraction)
            }
            (Self::Float(float), Self::Listed(listed, fraction)) => {
                let fraction = f64::from(*fraction) / 1e9;
                let near = |theirs: f64| (theirs - float).abs() <= float.abs() * f64::EPSILON + 1e-8;
                near(*listed as f64 + fraction) || near(*listed as f64 - fraction)
            }
            (one, other) => one == other,
        }
    }
}

impl View {
    /// Fields in which the two differ, as far as `other` has them.
    fn differing(&self, other: &Self) -> Vec<&'static str> {
        let link = matches!(self.kind, 'l' | 'h');
        let device = matches!(self.kind, 'c' | 'b');
        let mut fields = Vec::new();
        for (name, same) in [
            ("path", self.path == other.path),
            ("kind", self.kind == other.kind),
            ("size", self.kind != '-' || self.size == other.size),
            ("mode", self.mode == other.mode),
            ("uid", self.uid == other.uid),
            ("gid", self.gid == other.gid),
            ("mtime", self.mtime.agrees(&other.mtime)),
            ("link", !link || self.link == other.link),
            ("device", !device || self.device == other.device),
            ("content", self.kind != '-' || other.digest.is_none() || self.digest == other.digest),
            ("owners", other.owners.is_none() || self.owners == other.owners),
            ("xattrs", other.xattrs.is_none() || self.xattrs == other.xattrs),
        ] {
            if !same {
                fields.push(name);
            }
        }
        fields
    }
}

/// Where two lists differ: a field, or `entries` if one is longer. Nothing if they agree.
pub(crate) fn compare(ours: &[View], theirs: &[View]) -> Vec<&'static str> {
    let mut fields: Vec<_> =
        ours.iter().zip(theirs).flat_map(|(ours, theirs)| ours.differing(theirs)).collect();
    if ours.len() != theirs.len() {
        fields.push("entries");
    }
    fields.sort_unstable();
    fields.dedup();
    fields
}

/// The first entry in which two lists differ, in words.
pub(crate) fn explain(ours: &[View], theirs: &[View]) -> String {
    let differ = |(ours, theirs): (Option<&View>, Option<&View>)| match (ours, theirs) {
        (Some(ours), Some(theirs)) => !ours.differing(theirs).is_empty(),
        _ => true,
    };
    let longer = ours.len().max(theirs.len());
    let first = (0..longer).find(|&i| differ((ours.get(i), theirs.get(i)))).unwrap_or(0);
    let tell = |views: &[View]| views.get(first).map_or("nothing".to_owned(), ToString::to_string);
    format!("entry {first} of {} and {}\n    {}\n    {}", ours.len(), theirs.len(), tell(ours), tell(theirs))
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, size, mode, uid, gid, mtime, device, digest, owners, xattrs, .. } = self;
        write!(
            f,
            "{kind}{mode:04o} {uid}/{gid} {size} {mtime:?} {:?}",
            self.path.escape_ascii().to_string()
        )?;
        write!(
            f,
            " -> {:?} {device:?} {}",
            self.link.escape_ascii().to_string(),
            digest.as_deref().unwrap_or("")
        )?;
        write!(f, " {owners:?} {xattrs:?}")
    }
}

pub(crate) fn ours(archive: &[u8]) -> Result<Vec<View>, Error> {
    let mut reader = Reader::new(archive);
    let mut views = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        // The reader's own error, not the one that `data` wraps it in.
        let mut data = Vec::new();
        loop {
            let piece = reader.fill_data()?;
            if piece.is_empty() {
                break;
            }
            data.extend_from_slice(piece);
            let len = piece.len();
            reader.consume_data(len);
        }
        assert_eq!(reader.data().read(&mut [0]).unwrap(), 0);
        views.push(view(entry, &data));
    }
    Ok(views)
}

fn view(entry: Entry, data: &[u8]) -> View {
    let kind = match entry.kind {
        EntryKind::Regular => '-',
        EntryKind::HardLink => 'h',
        EntryKind::Symlink => 'l',
        EntryKind::CharDevice => 'c',
        EntryKind::BlockDevice => 'b',
        EntryKind::Directory => 'd',
        EntryKind::Fifo => 'p',
        EntryKind::Other(flag) => unknown(flag),
    };
    let digest = match &entry.sparse {
        _ if entry.size > MOST => "-".to_owned(),
        None => layerstore_testkit::digest(data),
        Some(segments) => {
            let mut content = vec![0; usize::try_from(entry.size).unwrap()];
            let mut rest = data;
            for segment in segments {
                let at = usize::try_from(segment.offset).unwrap();
                let (piece, after) = rest.split_at(usize::try_from(segment.len).unwrap());
                content[at..at + piece.len()].copy_from_slice(piece);
                rest = after;
            }
            layerstore_testkit::digest(&content)
        }
    };
    let mut xattrs = entry.xattrs;
    xattrs.sort();
    View {
        path: trimmed(&entry.path),
        kind,
        size: entry.size,
        mode: entry.mode,
        uid: entry.uid.into(),
        gid: entry.gid.into(),
        mtime: Time::Exact(entry.mtime.seconds, entry.mtime.nanoseconds),
        link: entry.link,
        device: (entry.device.0.into(), entry.device.1.into()),
        digest: Some(digest),
        owners: Some((entry.uname, entry.gname)),
        xattrs: Some(xattrs),
    }
}

pub(crate) fn unknown(flag: u8) -> char {
    if matches!(flag, b'V' | b'M') { flag.into() } else { '?' }
}

pub(crate) fn trimmed(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|&c| c != b'/').map_or(0, |last| last + 1);
    path[..end].to_vec()
}
