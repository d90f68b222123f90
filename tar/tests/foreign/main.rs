//! Archives of other programs are read as they were meant, and ours by them.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod gnu_tar;
mod python;
mod tar_crate;

use std::io::Read;
use std::process::{Command, Stdio};

use layerstore_tar::{Entry, EntryKind, Reader, Segment, Timestamp, Writer};

struct File {
    entry: Entry,
    /// As unpacked, holes filled.
    content: Vec<u8>,
}

fn read(archive: &[u8]) -> Vec<File> {
    let mut reader = Reader::new(archive);
    let mut files = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut data = Vec::new();
        reader.data().read_to_end(&mut data).unwrap();
        let content = expand(&entry, &data);
        files.push(File { entry, content });
    }
    files
}

fn expand(entry: &Entry, data: &[u8]) -> Vec<u8> {
    let Some(segments) = &entry.sparse else {
        return data.to_vec();
    };
    let mut content = vec![0; usize::try_from(entry.size).unwrap()];
    let mut rest = data;
    for segment in segments {
        let (offset, len) = (usize::try_from(segment.offset).unwrap(), usize::try_from(segment.len).unwrap());
        let (piece, after) = rest.split_at(len);
        content[offset..offset + len].copy_from_slice(piece);
        rest = after;
    }
    assert!(rest.is_empty());
    content
}

fn find<'a>(files: &'a [File], path: &[u8]) -> &'a File {
    files
        .iter()
        .find(|file| file.entry.path == path)
        .unwrap_or_else(|| panic!("no {} in the archive", path.escape_ascii()))
}

/// Runs a program that the tests need and returns what it prints.
fn run(command: &mut Command) -> Vec<u8> {
    let program = command.get_program().to_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("this test needs {}: {e}", program.display()));
    assert!(
        output.status.success(),
        "{} failed: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Entries of every kind, with everything that needs a PAX record.
fn samples() -> Vec<(Entry, Vec<u8>)> {
    let long = [&b"very/"[..], &[b'l'; 120], b"/", &[b'n'; 140]].concat();
    let mut file = Entry::regular(&long, 700);
    file.mode = 0o4751;
    file.mtime = Timestamp { seconds: 1_500_000_000, nanoseconds: 123_456_789 };
    file.xattrs = vec![(b"user.x".to_vec(), b"a=b".to_vec())];
    let mut sparse = Entry::regular(b"holes", 100_000);
    sparse.sparse = Some(vec![Segment { offset: 0, len: 512 }, Segment { offset: 65_536, len: 4090 }]);
    sparse.archived_size = 4602;
    let mut old = Entry::regular("grüße".as_bytes(), 0);
    old.mtime = Timestamp { seconds: -2, nanoseconds: 750_000_000 };
    let mut owned = Entry::directory(b"owned/");
    (owned.uid, owned.gid) = (3_000_000, 4_000_000_000);
    (owned.uname, owned.gname) = (b"nobody".to_vec(), vec![b'g'; 40]);
    vec![
        (Entry::directory(b"very/"), vec![]),
        (file, (0..700u32).map(|i| i.to_le_bytes()[0]).collect()),
        (sparse, vec![b'd'; 4602]),
        (old, vec![]),
        (owned, vec![]),
        (Entry::symlink(b"link", &[b't'; 150]), vec![]),
        (Entry::hard_link(b"again", b"holes"), vec![]),
        (Entry::fifo(b"pipe"), vec![]),
        (Entry::regular(b"last", 512), vec![7; 512]),
    ]
}

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry, &data[..]).unwrap();
    }
    writer.finish().unwrap()
}
