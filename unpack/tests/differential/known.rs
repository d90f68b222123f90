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
    (
        "a file with data whose name ends in a slash",
        "GNU tar unpacks it as a directory and the data as headers",
    ),
    ("unknown version of sparse files", "Go reads a plain file, GNU tar a sparse one"),
    ("no GNU.sparse.numbytes", "half a segment: the content would be a guess; Go refuses it"),
    ("no GNU.sparse.offset before", "half a segment: the content would be a guess; Go refuses it"),
    ("another number of segments follows", "GNU tar takes fewer than announced; Go refuses it"),
    ("not once before the map", "GNU tar begins the map anew there, Go does not"),
    ("a second map", "Go and GNU tar take different ones"),
    ("which has it in the data", "Go and GNU tar take different maps"),
    ("another one than GNU.sparse.realsize", "the size would be a guess"),
    ("an offset without a length", "half a segment: the content would be a guess; Go refuses it"),
    ("another name and no map", "Go takes the name for one of a plain file's comments"),
    ("with a map in the header", "Go does not look at the records of such an entry, GNU tar at some"),
    ("another size and no map", "GNU tar takes it for the size, Go does not"),
    ("with a header of another format", "GNU tar skips other bytes than Go"),
    ("on what is not a regular file", "sparse records have no meaning there, and Go refuses some"),
    ("ends before the file does", "GNU tar cuts the file off where its map ends; Go does not"),
    ("segments overlap or are not sorted", "what is where would be a guess; Go refuses it"),
    ("a segment ends past the end of the file", "the size would be a guess; Go refuses it"),
    ("segments add up to another length", "the content would be a guess; Go refuses it"),
    ("not a list of decimal lines", "GNU tar takes what is no number; Go refuses it"),
    ("goes past the end of the data", "GNU tar takes the next entry for a part of the map"),
    ("not a number that fits", "GNU tar takes 0, or half a number; Go refuses it"),
    ("in a global header", "sizes and maps that would frame every later entry"),
    ("has a NUL", "GNU tar ends the name there; Go refuses it"),
    ("GNU long name", "Go cuts the name off, or takes another one"),
    ("exceeds the limit", "limits are this crate's own"),
    ("extended attribute", "GNU tar does not look at attributes' names"),
    ("LIBARCHIVE.xattr", "GNU tar does not know the record"),
    // What is not for a layer to have.
    ("`..`", "GNU tar leaves the entry out or unpacks it elsewhere"),
    ("the root of a layer must be a directory", "GNU tar does nothing with such an entry"),
    ("a part of its path is not a directory", "a file whose name ends in a slash is none for GNU tar"),
    ("is a symbolic link to nothing", "no file system has it"),
    ("its type is not known", "GNU tar unpacks it as a file, or nothing"),
    ("owner or group ID is too large", "-1 does not change an owner"),
    ("something below it, and it is no directory", "below a device 0/0, which is not made"),
    ("is a hard link to", "a hard link to a directory or to the root"),
    ("whiteout", "names that begin with `.wh.`"),
];

/// What GNU tar complains about although it is unpacked here.
const GNU_COMPLAINS: List = &[
    ("does not look like a tar archive", "a stream of no bytes has no entries, as in Go"),
    ("Unexpected EOF", "the last entry's padding is missing, which Go accepts"),
    ("Removing leading", "a note that a leading slash is not followed"),
    ("Cannot hard link", "a hard link takes the place of a directory, or its own"),
    (
        "Malformed extended header: invalid",
        "an empty value means the header's own field, as in Go and libarchive",
    ),
    (
        "extended attribute for file",
        "a name that no file system takes, which containerd leaves out without a word as well",
    ),
    ("Substituting `.'", "an empty value means the header's own field, as in Go and libarchive"),
    ("out of uid_t range", "a record says otherwise, or Go and this crate leave it to the system"),
    ("out of gid_t range", "a record says otherwise, or Go and this crate leave it to the system"),
    // A first byte that is not 0x80 or 0xff.
    ("Archive contains '\\2", "base-256 with more bits in its first byte, which Go reads"),
    ("Archive contains '\\3", "base-256 with more bits in its first byte, which Go reads"),
];

/// The same where something takes the place of a directory, as an image's later entries do.
const REPLACES_DIRECTORY: List = &[
    (": File exists", "GNU tar keeps a directory that is not empty"),
    (": Cannot open: Is a directory\n", "GNU tar keeps a directory that is not empty"),
    (": Cannot open\n", "GNU tar keeps a directory that is not empty, and does not say why"),
    (": Cannot change mode to ", "GNU tar follows a link in a directory's place for what that said"),
];

fn find(list: List, message: &str) -> Option<&'static str> {
    list.iter().find(|(part, _)| message.contains(part)).map(|(_, reason)| *reason)
}

pub(crate) fn refused(error: &str) -> Option<&'static str> {
    find(REFUSED, error)
}

pub(crate) fn gnu_complains(archive: &[u8], complaint: &str) -> Option<&'static str> {
    let replaces =
        || find(REPLACES_DIRECTORY, complaint).filter(|_| Listed::of(archive).replaces_directory());
    find(GNU_COMPLAINS, complaint).or_else(replaces)
}

/// Where the trees differ although neither complained: the first reason, if each difference has one.
pub(crate) fn unlike_gnu(archive: &[u8], found: &[Difference]) -> Option<&'static str> {
    let headers = || archive.chunks_exact(BLOCK).filter(|block| is_header(block));
    if headers().any(|header| header[257..].starts_with(b"ustar  \0") && header[345] != 0) {
        return Some(
            "a GNU header with a prefix in the place of its times, as Go once wrote it; GNU tar ignores it",
        );
    }
    let listed = Listed::of(archive);
    if listed.slash {
        return Some("a regular file whose name ends in a slash is one, as in Go; GNU tar makes a directory");
    }
    let globals = headers().filter(|header| header[156] == b'g').count();
    let contains = |part: &[u8]| archive.windows(part.len()).any(|window| window == part);
    let reason = |Difference { path, what, .. }: &Difference| match *what {
        "mtime" | "owner" if globals > 1 => {
            Some("a second global header adds to the first, as in POSIX; GNU tar forgets the first")
        }
        "device" if contains(b"SCHILY.dev") => {
            Some("device numbers in records, as star and libarchive write them; GNU tar does not know those")
        }
        "mode" | "owner" | "mtime" | "xattrs" if listed.twice(path) => {
            Some("of what comes twice in two spellings, once as a directory, GNU tar keeps what that said")
        }
        "xattrs" if listed.with_a_dot(path) => {
            Some("GNU tar forgets attributes of `a/.` where it had to make `a` first")
        }
        _ => None,
    };
    let reasons: Option<Vec<_>> = found.iter().map(reason).collect();
    reasons?.first().copied()
}

/// What the archive lists, whatever GNU tar makes of it.
#[derive(Default)]
struct Listed {
    /// Spellings by path without dots and needless slashes, and whether they are those of a directory.
    names: BTreeMap<Vec<u8>, BTreeSet<(bool, Vec<u8>)>>,
    /// Targets of hard links by path, both without dots and needless slashes.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether a regular file's name ends in a slash.
    slash: bool,
}

fn simplified(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|&c| c == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

impl Listed {
    fn of(archive: &[u8]) -> Self {
        let mut listed = Self::default();
        let mut reader = Reader::new(archive);
        while let Ok(Some(entry)) = reader.next_entry() {
            if entry.kind == EntryKind::Regular && entry.path.ends_with(b"/") {
                listed.slash = true;
            }
            let path = simplified(&entry.path);
            if entry.kind == EntryKind::HardLink {
                listed.links.insert(path.clone(), simplified(&entry.link));
            }
            let is_directory = entry.kind == EntryKind::Directory;
            listed.names.entry(path).or_default().insert((is_directory, entry.path));
        }
        listed
    }

    /// Whether the path, or what it is a hard link to, is listed in two ways, one of them as a directory.
    fn twice(&self, path: &[u8]) -> bool {
        let is_twice =
            |names: &BTreeSet<_>| names.len() > 1 && names.iter().any(|(is_directory, _)| *is_directory);
        let path = self.links.get(path).map_or(path, Vec::as_slice);
        self.names.get(path).is_some_and(is_twice)
    }

    /// Whether the path is listed only as a directory whose last part is a dot.
    fn with_a_dot(&self, path: &[u8]) -> bool {
        let is_dot = |(is_directory, name): &(bool, Vec<u8>)| {
            let end = name.iter().rposition(|&c| c != b'/').map_or(0, |last| last + 1);
            *is_directory && name[..end].ends_with(b"/.")
        };
        self.names.get(path).is_some_and(|names| names.iter().all(is_dot))
    }

    /// Whether something is listed that is a directory as well, by itself or because of what is in it.
    fn replaces_directory(&self) -> bool {
        let is_parent = |path: &[u8]| {
            let inside = [path, b"/"].concat();
            self.names.keys().any(|other| other.starts_with(&inside))
        };
        self.names.iter().any(|(path, names)| {
            let other = names.iter().any(|(is_directory, _)| !is_directory);
            other && (names.iter().any(|(is_directory, _)| *is_directory) || is_parent(path))
        })
    }
}
