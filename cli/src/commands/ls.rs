//! `layerstore ls`.
//!
//! Names go to pipes as the bytes the image has; on a terminal control characters are replaced, as
//! `ls` does it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;

use layerstore::{FileEntry, FileKind, ListOptions};

use crate::args::List;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::{printable, time};
use crate::output::print;
use crate::template::Value;

pub(super) fn run(context: &Context, args: &List) -> Result<(), Failure> {
    let listing = args.format.as_deref().map(Listing::new).transpose()?;
    let store = context.store_to_look()?;
    let path = args.path.as_bytes();
    let progress = context.progress();
    let options = ListOptions { recursive: args.recursive, itself: args.directory };
    let mut entries = store.list(&args.image, path, options, &|event| progress.tell(&event))?;
    drop(progress);
    entries.retain(|entry| args.all || !is_hidden(entry));
    match listing {
        Some(listing) => {
            let rows: Vec<Value> = entries.iter().map(|entry| row(path, entry)).collect();
            print(listing.render(&[], &rows)?)
        }
        None => print(text(args, path, &entries, io::stdout().is_terminal())),
    }
}

/// Whether a name on the way begins with a dot. What was asked for by its own name is not hidden.
fn is_hidden(entry: &FileEntry) -> bool {
    entry.path.split(|byte| *byte == b'/').any(|name| name.starts_with(b"."))
}

/// The path of an entry below the one that was asked for; the same if it is that itself.
fn join(path: &[u8], below: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if below.is_empty() || path.ends_with(b"/") { b"" } else { b"/" };
    [path, slash, below].concat()
}

/// An entry and what it is called.
type Named<'a> = (&'a [u8], &'a FileEntry);

/// The listing as `ls` prints it; without control characters if `clean`.
fn text(args: &List, path: &[u8], entries: &[FileEntry], clean: bool) -> Vec<u8> {
    let shown = |bytes: &[u8]| {
        if clean { printable(&String::from_utf8_lossy(bytes)).into_bytes() } else { bytes.to_vec() }
    };
    if !args.recursive {
        let named = entries.iter().map(|entry| {
            let name = if entry.path.is_empty() { path } else { &entry.path };
            (name, entry)
        });
        return lines(args.long, &named.collect::<Vec<_>>(), shown);
    }
    if let [entry] = entries
        && entry.path.is_empty()
    {
        return lines(args.long, &[(path, entry)], shown);
    }
    // By the components of their paths, so that a directory is followed by what is below it.
    let mut directories: BTreeMap<Vec<&[u8]>, Vec<Named<'_>>> = BTreeMap::from([(Vec::new(), Vec::new())]);
    for entry in entries {
        let mut components: Vec<&[u8]> = entry.path.split(|byte| *byte == b'/').collect();
        if entry.kind == FileKind::Directory {
            directories.entry(components.clone()).or_default();
        }
        let Some(name) = components.pop() else { continue };
        directories.entry(components).or_default().push((name, entry));
    }
    let mut out = Vec::new();
    for (i, (directory, entries)) in directories.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"" } else { b"\n" });
        out.extend(shown(&join(path, &directory.join(&b'/'))));
        out.extend_from_slice(b":\n");
        out.extend(lines(args.long, entries, shown));
    }
    out
}

/// A line for each entry.
fn lines(long: bool, entries: &[Named<'_>], shown: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let column = |text: &dyn Fn(&FileEntry) -> String| {
        let cells: Vec<String> = entries.iter().map(|(_, entry)| text(entry)).collect();
        let width = cells.iter().map(String::len).max().unwrap_or(0);
        (cells, width)
    };
    let (uids, uid_width) = column(&|entry| entry.uid.to_string());
    let (gids, gid_width) = column(&|entry| entry.gid.to_string());
    let (sizes, size_width) = column(&size);
    let mut out = Vec::new();
    for (i, (name, entry)) in entries.iter().enumerate() {
        if long {
            let (mode, time) = (mode(entry), time::minute(entry.modified.0));
            let (uid, gid, size) = (&uids[i], &gids[i], &sizes[i]);
            let start = format!("{mode} {uid:>uid_width$} {gid:>gid_width$} {size:>size_width$} {time} ");
            out.extend_from_slice(start.as_bytes());
        }
        out.extend(shown(name));
        if let Some(target) = entry.link.as_ref().filter(|_| long) {
            out.extend_from_slice(b" -> ");
            out.extend(shown(target));
        }
        out.push(b'\n');
    }
    out
}

fn size(entry: &FileEntry) -> String {
    match entry.kind {
        FileKind::BlockDevice | FileKind::CharDevice => format!("{},{}", entry.device.0, entry.device.1),
        _ => entry.size.to_string(),
    }
}

/// Type and permissions as `ls -l` draws them.
fn mode(entry: &FileEntry) -> String {
    let bit = |bit: u32, set: char| if entry.mode & bit == 0 { '-' } else { set };
    // Set-user-ID and its like share the place of the execute bit.
    let special =
        |execute: u32, special: u32, both: char| match (entry.mode & execute != 0, entry.mode & special != 0)
        {
            (true, true) => both,
            (false, true) => both.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        };
    let kind = match entry.kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::BlockDevice => 'b',
        FileKind::CharDevice => 'c',
        FileKind::Fifo => 'p',
        _ => 's',
    };
    String::from_iter([
        kind,
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        special(0o100, 0o4000, 's'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        special(0o010, 0o2000, 's'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        special(0o001, 0o1000, 't'),
    ])
}

/// The fields of an entry for `--format`.
fn row(path: &[u8], entry: &FileEntry) -> Value {
    let text = |bytes: &[u8]| Value::str(String::from_utf8_lossy(bytes));
    let full = join(path, &entry.path);
    let name = full.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    Value::fields([
        ("Name", text(name)),
        ("Path", text(&full)),
        ("Mode", Value::str(mode(entry))),
        ("Uid", Value::Int(entry.uid.into())),
        ("Gid", Value::Int(entry.gid.into())),
        ("Size", Value::Int(i64::try_from(entry.size).unwrap_or(i64::MAX))),
        ("ModTime", Value::str(time::rfc3339(entry.modified.0))),
        ("Device", Value::str(format!("{},{}", entry.device.0, entry.device.1))),
        ("Target", entry.link.as_deref().map_or(Value::Nil, text)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: FileKind, mode: u32) -> FileEntry {
        FileEntry {
            path: path.as_bytes().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: if path == "b" { 1000 } else { 0 },
            links: 1,
            size: 12,
            modified: (1_704_067_200, 5),
            device: (8, 1),
            link: (kind == FileKind::Symlink).then(|| b"/x\x1by".to_vec()),
        }
    }

    fn entries() -> Vec<FileEntry> {
        vec![
            entry("a", FileKind::Directory, 0o1777),
            entry("a-b", FileKind::Symlink, 0o777),
            entry("a/b", FileKind::Regular, 0o4755),
            entry("a/c", FileKind::Directory, 0o700),
            entry("b", FileKind::BlockDevice, 0o2640),
        ]
    }

    fn args(long: bool, recursive: bool) -> List {
        List {
            image: "x".into(),
            path: "/p".into(),
            long,
            all: false,
            recursive,
            directory: false,
            format: None,
        }
    }

    fn shown(long: bool, recursive: bool, entries: &[FileEntry]) -> String {
        String::from_utf8(text(&args(long, recursive), b"/p", entries, true)).unwrap()
    }

    #[test]
    fn names_stand_one_a_line() {
        let flat: Vec<FileEntry> = entries().into_iter().filter(|e| !e.path.contains(&b'/')).collect();
        assert_eq!(shown(false, false, &flat), "a\na-b\nb\n");
        let long = shown(true, false, &flat);
        let lines: Vec<&str> = long.lines().collect();
        assert!(lines[0].starts_with("drwxrwxrwt 0    0  12 20"), "{long}");
        assert!(lines[1].ends_with(" a-b -> /x y"), "{long}");
        assert!(lines[2].starts_with("brw-r-S--- 0 1000 8,1 20"), "{long}");
        assert_eq!(mode(&entries()[2]), "-rwsr-xr-x");
    }

    #[test]
    fn a_file_is_listed_by_the_name_it_was_asked_for() {
        let file = [entry("", FileKind::Regular, 0o644)];
        assert_eq!(shown(false, false, &file), "/p\n");
        assert_eq!(shown(false, true, &file), "/p\n");
    }

    #[test]
    fn directories_come_one_after_another() {
        assert_eq!(shown(false, true, &entries()), "/p:\na\na-b\nb\n\n/p/a:\nb\nc\n\n/p/a/c:\n");
    }

    #[test]
    fn names_with_a_dot_are_hidden_with_all_that_is_below() {
        assert!(is_hidden(&entry(".a/b", FileKind::Regular, 0)));
        assert!(is_hidden(&entry("a/.b", FileKind::Regular, 0)));
        assert!(!is_hidden(&entry("a.b", FileKind::Regular, 0)));
        assert!(!is_hidden(&entry("", FileKind::Regular, 0)));
    }

    #[test]
    fn rows_have_full_paths() {
        let row = row(b"/p/", &entries()[2]).to_json();
        assert_eq!((row["Name"].as_str(), row["Path"].as_str()), (Some("b"), Some("/p/a/b")));
        assert_eq!((row["Mode"].as_str(), row["Size"].as_u64()), (Some("-rwsr-xr-x"), Some(12)));
    }
}
