//! Unpacks an image without layerstore: GNU tar for the entries, the whiteout rules of the OCI image
//! specification by hand, one layer over the other in a plain directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde_json::Value;
use tar::EntryType;

/// Unpacks the first image of the OCI layout directory `layout` into the empty directory `out`. Returns
/// whether any layer lists the root directory; if none does, its attributes are nobody's choice.
pub fn unpack(layout: &Path, out: &Path) -> bool {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        layout.join("blobs/sha256").join(crate::hex_of(digest))
    };
    let json = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = json(&layout.join("index.json"));
    let manifest = json(&blob(&index["manifests"][0]));
    let mut root_listed = false;
    for layer in manifest["layers"].as_array().unwrap() {
        root_listed |= apply(&blob(layer), out);
    }
    root_listed
}

/// What a layer says about one path.
struct Listed {
    path: PathBuf,
    kind: EntryType,
}

/// Applies one layer; returns whether it lists the root directory.
fn apply(blob: &Path, out: &Path) -> bool {
    let mut listed = Vec::new();
    let mut archive = tar::Archive::new(open(blob));
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = entry.path_bytes();
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        listed
            .push(Listed { path: PathBuf::from(OsStr::from_bytes(path)), kind: entry.header().entry_type() });
    }

    // A directory that the layer does not list keeps the time that the layers below gave it.
    let directories: BTreeSet<_> =
        listed.iter().filter(|l| l.kind.is_dir()).map(|l| l.path.components().as_path().to_owned()).collect();
    let mut times = BTreeMap::new();
    for above in listed.iter().flat_map(|l| l.path.ancestors().skip(1)) {
        if let (false, Ok(meta)) = (directories.contains(above), fs::symlink_metadata(out.join(above))) {
            assert!(meta.is_dir(), "GNU tar would write through the link {}", above.display());
            times.insert(above.to_owned(), meta);
        }
    }

    for Listed { path, kind } in &listed {
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        let parent = path.parent().unwrap_or(Path::new(""));
        if name == b".wh..wh..opq" {
            for child in fs::read_dir(out.join(parent)).into_iter().flatten() {
                remove(&child.unwrap().path());
            }
        } else if let Some(hidden) = name.strip_prefix(b".wh.") {
            remove(&out.join(parent).join(OsStr::from_bytes(hidden)));
        } else if let Ok(old) = fs::symlink_metadata(out.join(path))
            && old.is_dir() != kind.is_dir()
        {
            remove(&out.join(path));
        }
    }

    let mut tar = Command::new("tar")
        .args(["--extract", "--file=-", "--numeric-owner", "--same-owner", "--preserve-permissions"])
        .args(["--xattrs", "--xattrs-include=*", "--delay-directory-restore", "--warning=no-timestamp"])
        .args(["--exclude=.wh.*", "--directory"])
        .arg(out)
        .stdin(Stdio::piped())
        .spawn()
        .expect("GNU tar runs");
    let mut input = tar.stdin.take().unwrap();
    io::copy(&mut open(blob), &mut input).unwrap();
    drop(input);
    assert!(tar.wait().unwrap().success(), "GNU tar failed on {}", blob.display());

    for (path, meta) in times {
        use std::os::unix::fs::MetadataExt;
        let time = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, out.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    directories.contains(Path::new(""))
}

/// The layer's tar stream, whatever its compression.
fn open(blob: &Path) -> Box<dyn Read> {
    let mut file = File::open(blob).unwrap();
    let mut magic = [0; 4];
    let n = file.read(&mut magic).unwrap();
    file.rewind().unwrap();
    let file = BufReader::with_capacity(1 << 18, file);
    match &magic[..n] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(file).unwrap()),
        _ => Box::new(file),
    }
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Image, Layout};
    use crate::layer::{Compression, Entry, LayerBuilder};
    use crate::tree::Snapshot;

    #[test]
    fn privileged_layers_are_applied_by_the_rules_of_the_specification() {
        if !crate::require::root() {
            return;
        }
        let below = LayerBuilder::gzip()
            .entry(Entry::dir("./").mode(0o711).mtime(5, 0))
            .dir("d/")
            .file("d/deleted", "x")
            .entry(Entry::file("d/kept", "kept").owner(3, 4).mtime(7, 123_456_789))
            .dir("o/")
            .file("o/hidden", "x")
            .file("was-file", "x")
            .dir("was-dir")
            .file("was-dir/x", "x");
        let above = LayerBuilder::new(Compression::Zstd)
            .whiteout("d/deleted")
            .file("o/new", "new")
            .opaque("o")
            .dir("was-file")
            .file("was-dir", "now a file")
            .hard_link("second-name", "d/kept");
        let layout = tempfile::tempdir().unwrap();
        let image = Image::new([below.finish(), above.finish()]);
        Layout::of("localhost/a:1", &image).write(layout.path());
        let out = tempfile::tempdir().unwrap();
        assert!(unpack(layout.path(), out.path()), "the first layer lists the root");

        let tree = Snapshot::of(out.path());
        let paths: Vec<_> = tree.entries.keys().map(|p| str::from_utf8(p).unwrap()).collect();
        assert_eq!(paths, ["", "d", "d/kept", "o", "o/new", "second-name", "was-dir", "was-file"]);
        let kept = tree.at("d/kept");
        assert_eq!((kept.uid, kept.gid, kept.mtime), (3, 4, (7, 123_456_789)));
        assert_eq!(tree.at("second-name").link_of.as_deref(), Some(&b"d/kept"[..]));
        assert_eq!(tree.at("").mode, 0o711);
        assert_eq!(tree.at("").mtime, (5, 0), "unlisted in the second layer, so it keeps its time");
        assert_eq!(tree.at("d").mtime, (1_700_000_000, 0));
    }
}
