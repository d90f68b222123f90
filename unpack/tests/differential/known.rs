//! Every difference that is allowed, with its reason.

use std::collections::{BTreeMap, BTreeSet};

use layerstore_tar::{EntryKind, Reader};
use layerstore_testkit::rawtar::{BLOCK, is_header};
use layerstore_testkit::tree::Difference;

/// A part of a message, and why it is no mistake.
type List = &'static [(&'static str, &'static str)];

/// What is refused although GNU tar unpacks it without a word. The first part is about archives: see the list of
/// the same name in `layerstore-tar`, where Python has a say too.
const REFUSED: List = &[
    ("ends inside a header", "GNU tar ignores a part of a block at the end; Go refuses it"),
    ("ends inside the end of the archive", "GNU tar ignores a part of a block at the end; Go refuses it"),
    ("after its extension header", "GNU tar ignores a last extension header; Go refuses it"),
    ("no entry follows", "GNU tar ignores a last extension header; Go refuses it"),
    (
        "a lone block of zeros before the end",
        "GNU tar stops at one block of zeros; Go refuses what follows it",
    ),
    ("`PAX record`", "GNU tar stops at a NUL in place of a record; Go refuses it"),
    ("not a decimal number", "GNU tar ignores the record or reads half a number; Go refuses it"),
    ("not an octal or base-256 number", "GNU tar reads 0, half a number or none; Go refuses it"),
    ("number too large", "a number that no file can have"),
    ("negative", "an owner, size or mode that no file can have"),
    ("not 0, although the type has no data", "Go does not skip the data that the size announces"),
    ("a sparse file in another format than GNU", "GNU tar ignores the map; Go refuses it"),
    ("GNU.sparse", "a map that is incomplete, unknown or out of place: Go and GNU tar go different ways"),
    ("`sparse map`", "a map that does not fit the file: the content would be a guess"),
    ("in a global header", "sizes and maps that would frame every later entry"),
    ("has a NUL", "GNU tar ends the name there; Go refuses it"),
    ("GNU long name", "Go cuts the name off, or takes another one"),
    ("exceeds the limit", "limits are this crate's own"),
    ("extended attribute", "GNU tar does not look at attributes' names"),
    ("LIBARCHIVE.xattr", "GNU tar does not know the record"),
    // What is not for a layer to have.
    ("`..`", "GNU tar leaves the entry out or unpacks it elsewhere"),
    ("overlayfs's whiteout", "a device 0/0 would hide a file of the layer below"),
    ("the root of a layer must be a directory", "GNU tar does nothing with such an entry"),
    ("a part of its path is not a directory", "a file whose name ends in a slash is none for GNU tar"),
    ("is a symbolic link to nothing", "no file system has it"),
    ("its type is not known", "GNU tar unpacks it as a file, or nothing"),
    ("owner or group ID is too large", "-1 does not change an owner"),
    ("which the layer does not contain", "hard links to nothing, or to the file itself"),
    ("is a hard link to", "a hard link to a directory or to the root"),
    ("whiteout", "names that begin with `.wh.`"),
];

/// What GNU tar complains about although it is unpacked here.
const GNU_COMPLAINS: List = &[
    ("does not look like a tar archive", "a stream of no bytes has no entries, as in Go"),
    ("Unexpected EOF", "the last entry's padding is missing, which Go accepts"),
    ("Removing leading", "a note that a leading slash is not followed"),
    (": File exists", "something takes the place of a directory, as an image's later entries do"),
    ("Cannot hard link", "a hard link takes the place of a directory, or its own"),
    ("Cannot open: Is a directory", "a file takes the place of a directory, as an image's later entries do"),
    (
        "Malformed extended header: invalid",
        "an empty value means the header's own field, as in Go and libarchive",
    ),
    ("Substituting `.'", "an empty value means the header's own field, as in Go and libarchive"),
    ("where numeric", "the field has no meaning there, or limits differ"),
    ("obsolescent base-64", "the field has no meaning there"),
    ("out of", "the field has no meaning there, or limits differ"),
];

fn find(list: List, message: &str) -> Option<&'static str> {
    list.iter().find(|(part, _)| message.contains(part)).map(|(_, reason)| *reason)
}

pub(crate) fn refused(error: &str) -> Option<&'static str> {
    find(REFUSED, error)
}

pub(crate) fn gnu_complains(complaint: &str) -> Option<&'static str> {
    find(GNU_COMPLAINS, complaint)
}

/// Where the trees differ although neither complained.
pub(crate) fn unlike_gnu(archive: &[u8], found: &[Difference]) -> Option<&'static str> {
    let headers = || archive.chunks_exact(BLOCK).filter(|block| is_header(block));
    let only = |allowed: &[&str]| found.iter().all(|difference| allowed.contains(&difference.what));
    if headers().filter(|header| header[156] == b'g').count() > 1 && only(&["mtime", "owner"]) {
        return Some("a second global header adds to the first, as in POSIX; GNU tar forgets the first");
    }
    if headers().any(|header| header[257..].starts_with(b"ustar  \0") && header[345] != 0) {
        return Some(
            "a GNU header with a prefix in the place of its times, as Go once wrote it; GNU tar ignores it",
        );
    }
    let listed = Listed::of(archive);
    if found.iter().all(|difference| listed.twice(&difference.path))
        && only(&["mode", "owner", "mtime", "xattrs"])
    {
        return Some(
            "of what comes twice in two spellings, once as a directory, GNU tar keeps what that said",
        );
    }
    if listed.slash {
        return Some("a regular file whose name ends in a slash is one, as in Go; GNU tar makes a directory");
    }
    None
}

/// What the archive lists, whatever GNU tar makes of it.
#[derive(Default)]
struct Listed {
    /// Spellings by path without dots and needless slashes, and whether they are those of a directory.
    names: BTreeMap<Vec<u8>, BTreeSet<(bool, Vec<u8>)>>,
    /// Whether a regular file's name ends in a slash.
    slash: bool,
}

impl Listed {
    fn of(archive: &[u8]) -> Self {
        let mut listed = Self::default();
        let mut reader = Reader::new(archive);
        while let Ok(Some(entry)) = reader.next_entry() {
            if entry.kind == EntryKind::Regular && entry.path.ends_with(b"/") {
                listed.slash = true;
            }
            let parts = entry.path.split(|&c| c == b'/').filter(|part| !part.is_empty() && *part != b".");
            let path = parts.collect::<Vec<_>>().join(&b'/');
            let is_directory = entry.kind == EntryKind::Directory;
            listed.names.entry(path).or_default().insert((is_directory, entry.path));
        }
        listed
    }

    fn twice(&self, path: &[u8]) -> bool {
        let is_twice =
            |names: &BTreeSet<_>| names.len() > 1 && names.iter().any(|(is_directory, _)| *is_directory);
        self.names.get(path).is_some_and(is_twice)
    }
}
