//! Every difference that is allowed, with its reason.

use layerstore_tar::{EntryKind, Reader};
use layerstore_testkit::rawtar::{BLOCK, is_header};

/// A part of a message, and why it is no mistake.
type List = &'static [(&'static str, &'static str)];

/// What this crate refuses although GNU tar and Python read it alike and without a word.
const REFUSED: List = &[
    ("a lone block of zeros before the end", "both stop at one block of zeros; Go refuses what follows it"),
    ("ends inside the end of the archive", "part of a block, which Go refuses"),
    ("`PAX record`", "they stop at a malformed record and ignore the rest; Go refuses it"),
    ("not a decimal number", "they take a sign, a space or a fraction, or ignore the record; Go refuses it"),
    ("not an octal or base-256 number", "they take a sign, or 0 for what is no number; Go refuses it"),
    ("not 0, although the type has no data", "Go does not skip the data that the size announces"),
    ("on what is not a regular file", "sparse records have no meaning there, and Go refuses some"),
    (
        "a file with data whose name ends in a slash",
        "GNU tar unpacks it as a directory and the data as headers",
    ),
    ("unknown version of sparse files", "Go reads a plain file, GNU tar a sparse one"),
    ("no GNU.sparse.numbytes", "half a segment: the content would be a guess; Go refuses it"),
    ("no GNU.sparse.offset before", "half a segment: the content would be a guess; Go refuses it"),
    ("another number of segments follows", "GNU tar takes fewer than announced; Go refuses it"),
    ("not once before the map", "GNU tar begins the map anew there, Python does not look at it"),
    ("a second map", "Go and GNU tar take different ones"),
    ("which has it in the data", "Go and GNU tar take different maps"),
    ("another one than GNU.sparse.realsize", "Python takes the other one"),
    ("another name and no map", "Go takes the name for one of a plain file's comments"),
    ("with a map in the header", "Go does not look at the records of such an entry, GNU tar at some"),
    ("another size and no map", "Go takes the size for one of a plain file's comments"),
    ("with a header of another format", "GNU tar skips other bytes than Go"),
    ("ends before the file does", "GNU tar cuts the file off where its map ends; Go and Python do not"),
    ("segments overlap or are not sorted", "what is where would be a guess; Go refuses it"),
    ("a segment ends past the end of the file", "the size would be a guess; Go refuses it"),
    ("segments add up to another length", "the content would be a guess; Go refuses it"),
    ("not a list of decimal lines", "they take what is no number; Go refuses it"),
    ("goes past the end of the data", "they take the next entry for a part of the map"),
    ("not a number that fits", "they take 0, or half a number; Go refuses it"),
    ("a sparse file in another format than GNU", "Go refuses it: only GNU headers have a map"),
    ("in a global header", "sizes and maps that would frame every later entry"),
    ("negative", "an owner, size or mode that no file can have"),
    ("number too large", "a number that no file can have"),
    ("an offset without a length", "Python drops the last number"),
    ("GNU long name", "Go cuts the name off, or takes another one"),
    ("exceeds the limit", "limits are this crate's own"),
    ("has a NUL", "they end the name there; Go refuses it"),
    ("no entry follows", "an extension header before the end means nothing; Go refuses it"),
    ("after its extension header", "an extension header before the end means nothing; Go refuses it"),
    ("extended attribute", "they do not look at attributes' names"),
    ("LIBARCHIVE.xattr", "they do not look at attributes' encoding"),
    ("checksum mismatch", "they take a checksum field with more in it than its number"),
];

/// What GNU tar complains about although this crate reads it.
const GNU_COMPLAINS: List = &[
    ("does not look like a tar archive", "a stream of no bytes has no entries, as in Go"),
    ("Substituting `.'", "an empty name is the caller's to judge"),
    ("Unexpected EOF", "the last entry's padding is missing, which Go accepts"),
    (
        "Malformed extended header: invalid",
        "an empty value means the header's own field, as in Go and libarchive",
    ),
    ("is out of range 0..4294967295", "Go and this crate leave large numbers to the caller"),
    ("out of uid_t range", "Go and this crate leave large numbers to the caller"),
    ("out of gid_t range", "Go and this crate leave large numbers to the caller"),
    ("where numeric uintmax_t", "the place of a continued file on its tape, which only GNU tar reads"),
    // A first byte that is not 0x80 or 0xff.
    ("Archive contains '\\2", "base-256 with more bits in its first byte, which Go reads"),
    ("Archive contains '\\3", "base-256 with more bits in its first byte, which Go reads"),
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

/// Where this crate and GNU tar read something else without a word. The entries are always the same ones.
pub(crate) fn unlike_gnu(archive: &[u8], fields: &[&str]) -> Option<&'static str> {
    let facts = Facts::of(archive);
    let causes: [(bool, &[&str], &str); 5] = [
        (
            facts.empty_link,
            &["link"],
            "an empty record means the header's own field, as in Go and libarchive; GNU tar takes the link as empty",
        ),
        (
            facts.globals > 1,
            &["mtime", "uid", "gid", "path", "link"],
            "a second global header adds to the first, as in POSIX; GNU tar forgets the first",
        ),
        (
            facts.device_records,
            &["device"],
            "device numbers in records, as star and libarchive write them; GNU tar does not know those",
        ),
        (
            facts.trailing_slash,
            &["kind"],
            "a regular file whose name ends in a slash is one, as in Go; GNU tar makes a directory",
        ),
        (
            facts.gnu_prefix,
            &["path"],
            "a GNU header with a prefix in the place of its times, as Go once wrote it; GNU tar ignores it",
        ),
    ];
    let cause = |field: &&str| causes.iter().find(|(is_so, fields, _)| *is_so && fields.contains(field));
    fields.iter().all(|field| cause(field).is_some()).then(|| cause(fields.first()?).map(|cause| cause.2))?
}

/// Where Python reads something else that everyone else reads alike.
pub(crate) fn unlike_python(archive: &[u8], fields: &[&str]) -> Option<&'static str> {
    let facts = Facts::of(archive);
    let only = |allowed: &[&str]| fields.iter().all(|field| allowed.contains(field));
    if facts.device_records && only(&["device"]) {
        return Some("Python does not know device numbers in records");
    }
    if facts.empty_link && only(&["link"]) {
        return Some(
            "an empty record means the header's own field, as in Go and libarchive; Python takes the link as empty",
        );
    }
    if facts.libarchive && only(&["xattrs"]) {
        return Some("Python does not know libarchive's form of attributes");
    }
    if facts.gnu_prefix && only(&["path"]) {
        return Some(
            "a GNU header with a prefix in the place of its times, as Go once wrote it; Python ignores it",
        );
    }
    if facts.old_prefix {
        return Some("Python takes the access time of a GNU header for a prefix");
    }
    if facts.sparse_size {
        return Some("Python takes a `size` record for the size of a sparse file with its holes");
    }
    if facts.globals > 0 && facts.sparse {
        return Some("Python forgets global records at an old GNU sparse file");
    }
    if facts.v7 && only(&["owners"]) {
        return Some("Python reads owners' names where the format has none");
    }
    if facts.global_between && only(&["xattrs", "owners", "mtime"]) {
        return Some("Python forgets a global header between a PAX header and its entry");
    }
    if facts.two_pax {
        return Some("Python merges two PAX headers before one entry; the second replaces the first");
    }
    None
}

/// What the headers of an archive have in them.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Facts {
    globals: usize,
    /// A regular file whose name ends in a slash.
    trailing_slash: bool,
    /// Something where ustar has its prefix and this format has times or nothing.
    gnu_prefix: bool,
    /// The same where Python takes it for a prefix.
    old_prefix: bool,
    sparse: bool,
    sparse_size: bool,
    v7: bool,
    device_records: bool,
    libarchive: bool,
    empty_link: bool,
    /// A global header after a PAX header.
    global_between: bool,
    /// Two PAX headers, and at most long names between.
    two_pax: bool,
}

impl Facts {
    fn of(archive: &[u8]) -> Self {
        let headers: Vec<&[u8]> = archive.chunks_exact(BLOCK).filter(|block| is_header(block)).collect();
        let flag = |flag| headers.iter().filter(|header| header[156] == flag).count();
        let is_ustar = |header: &[u8]| header[257..].starts_with(b"ustar\0");
        let contains = |part: &[u8]| archive.windows(part.len()).any(|window| window == part);
        let mut trailing_slash = false;
        let mut reader = Reader::new(archive);
        while let Ok(Some(entry)) = reader.next_entry() {
            trailing_slash |= entry.kind == EntryKind::Regular && entry.path.ends_with(b"/");
        }
        let prefix =
            |header: &&[u8]| !is_ustar(header) && header[345] != 0 && !matches!(header[156], b'L' | b'K');
        let all_flags: Vec<u8> =
            headers.iter().map(|header| header[156]).filter(|flag| !b"LK".contains(flag)).collect();
        let flags: Vec<u8> =
            headers.iter().map(|header| header[156]).filter(|flag| !b"LKg".contains(flag)).collect();
        Self {
            globals: flag(b'g'),
            trailing_slash,
            gnu_prefix: headers.iter().any(prefix),
            old_prefix: headers.iter().any(|header| prefix(header) && header[156] != b'S'),
            sparse: flag(b'S') > 0,
            sparse_size: contains(b"GNU.sparse.") && contains(b" size="),
            v7: headers.iter().any(|header| !is_ustar(header) && !header[257..].starts_with(b"ustar  \0")),
            empty_link: contains(b" linkpath=\n"),
            libarchive: contains(b"LIBARCHIVE.xattr."),
            device_records: contains(b"SCHILY.dev"),
            global_between: all_flags.windows(2).any(|pair| matches!(pair, [b'x' | b'X', b'g'])),
            two_pax: flags.windows(2).any(|pair| pair.iter().all(|flag| matches!(flag, b'x' | b'X'))),
        }
    }
}
