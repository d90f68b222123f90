//! Cases that `fixtures/layers/cases.toml` has no words for: attributes, forms of tar, streams.

use layerstore_testkit::cases::Look;
use layerstore_testkit::digest;
use layerstore_testkit::image::Image;
use layerstore_testkit::layer::{Compression, Entry, EntryType, Layer, LayerBuilder};
use layerstore_testkit::rawtar::{Format, Kind, Member, append};
use layerstore_testkit::rng::Rng;
use serde_json::json;

type Case = (&'static str, &'static str, Look);

/// Name, rule, and the image with what becomes of it.
pub(crate) fn all() -> Vec<Case> {
    let mut all = attributes();
    all.extend(forms());
    all.extend(streams());
    all
}

fn sees(name: &'static str, rule: &'static str, layers: Vec<Layer>, lines: &[&str]) -> Case {
    let mut lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
    lines.sort();
    (name, rule, Look { image: Image::new(layers), expected: Ok(lines) })
}

fn refused(name: &'static str, rule: &'static str, image: Image, what: &str) -> Case {
    (name, rule, Look { image, expected: Err(what.to_owned()) })
}

fn layer(entries: impl IntoIterator<Item = Entry>) -> Layer {
    entries.into_iter().fold(LayerBuilder::gzip(), LayerBuilder::entry).finish()
}

/// A capability set of version 2: `cap_net_bind_service` permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn attributes() -> Vec<Case> {
    vec![
        sees(
            "set-user-ID and file capabilities of another owner",
            "`chown` clears both, so they are set behind it",
            vec![layer([
                Entry::file("f", "x").mode(0o4755).owner(5, 6),
                Entry::file("g", "x").mode(0o755).owner(5, 6).xattr("security.capability", CAPABILITY),
            ])],
            &["f = x 4755 5:6", "g = x 0755 5:6 {security.capability}"],
        ),
        sees(
            "owners beyond the header's field",
            "PAX",
            vec![layer([Entry::file("f", "x").owner(3_000_000, 4_000_000_000)])],
            &["f = x 3000000:4000000000"],
        ),
        sees(
            "extended attributes of a file and a directory",
            "PAX `SCHILY.xattr`: kept, whatever their name",
            vec![layer([
                Entry::dir("d/").xattr("user.k", "v"),
                Entry::file("f", "x").xattr("user.k", "v").xattr("trusted.k", "v"),
            ])],
            &["d/ {user.k}", "f = x {trusted.k} {user.k}"],
        ),
        sees(
            "an attribute that would make a directory opaque",
            "overlayfs's own names mean nothing in a layer: escaped",
            vec![
                layer([Entry::dir("d/"), Entry::file("d/old", "x")]),
                layer([Entry::dir("d/").xattr("trusted.overlay.opaque", "y"), Entry::file("d/new", "y")]),
            ],
            &["d/", "d/new = y", "d/old = x"],
        ),
        sees(
            "an attribute that would send a directory elsewhere",
            "overlayfs's own names mean nothing in a layer: escaped",
            vec![
                layer([Entry::dir("secret/"), Entry::file("secret/f", "x"), Entry::dir("d/")]),
                layer([Entry::dir("d/").xattr("trusted.overlay.redirect", "/secret")]),
            ],
            &["d/", "secret/", "secret/f = x"],
        ),
        sees(
            "times to the nanosecond and in the year 2255",
            "PAX; as exact as the file system",
            vec![layer([
                Entry::file("f", "x").mtime(1_600_000_000, 123_456_789),
                Entry::file("g", "x").mtime(9_000_000_000, 0),
            ])],
            &["f = x @1600000000.123456789", "g = x @9000000000.000000000"],
        ),
        sees(
            "a time before 1970",
            "PAX; as exact as the file system",
            vec![layer([Entry::file("f", "x").pax("mtime", "-5.25")])],
            &["f = x @-6.750000000"],
        ),
        sees(
            "the time of a directory that is filled afterwards",
            "directories get their attributes last",
            vec![
                layer([
                    Entry::dir("d/").mtime(1_500_000_000, 5),
                    Entry::file("d/f", "x"),
                    Entry::file("d/g", "x"),
                ]),
                layer([Entry::dir("d/").mtime(1_500_000_000, 7), Entry::file("d/.wh.f", "")]),
            ],
            &["d/ @1500000000.000000007", "d/g = x"],
        ),
        sees(
            "the time of a directory that no layer lists",
            "the same on every machine: 1970",
            vec![layer([Entry::file("d/f", "x")])],
            &["d/ @0.000000000", "d/f = x"],
        ),
        sees(
            "the time of a symbolic link",
            "its own, not its target's",
            vec![layer([Entry::symlink("l", "f").mtime(1_500_000_000, 0), Entry::file("f", "x")])],
            &["f = x", "l -> f @1500000000.000000000"],
        ),
        sees(
            "hard links of one layer are one file",
            "OCI image spec, layer.md, hardlinks",
            vec![layer([Entry::file("f", "x"), Entry::hard_link("l", "f")])],
            &["f = x links 2", "l = x links 2"],
        ),
        sees(
            "devices and pipes",
            "made as they are, unless `devices` is set to `refuse`",
            vec![layer([Entry::device("null", 1, 3).mode(0o666), Entry::new(EntryType::Fifo, "p")])],
            &["null c 1 3 0666", "p |"],
        ),
    ]
}

fn forms() -> Vec<Case> {
    let deep = vec!["n".repeat(250).as_str(); 20].join("/");
    let deep_seen: Vec<String> = (1..=20).map(|depth| seen(&deep[..depth * 251 - 1], "/")).collect();
    let mut deep_seen: Vec<&str> = deep_seen.iter().map(String::as_str).collect();
    let file = seen(&format!("{deep}/file"), " = deep");
    let dirs = (1..=20).map(|depth| Entry::dir(&deep[..depth * 251 - 1]));
    deep_seen.push(&file);
    let long = "x".repeat(255);
    let long_seen = seen(&long, " = x");
    let sparse = [format!("1\n{}\n4096\n", (1 << 20) - 4096).into_bytes(), vec![0; 512]].concat();
    let sparse = [&sparse[..512], &[b'x'; 4096]].concat();
    let global = b"25 comment=global header\n";
    vec![
        sees(
            "names of any bytes and of 255 bytes",
            "a name is bytes",
            vec![layer([Entry::file(b"\xff\xfe", "x"), Entry::file("a\nb", "x"), Entry::file(&long, "x")])],
            &["\\xff\\xfe = x", "a\\nb = x", &long_seen],
        ),
        sees(
            "a path of 5000 bytes",
            "longer than a system call takes, so opened in steps",
            vec![layer(dirs.chain([Entry::file(format!("{deep}/file"), "deep")]))],
            &deep_seen,
        ),
        sees(
            "a sparse file (PAX 1.0)",
            "GNU tar manual, Sparse Formats: the holes stay holes",
            vec![layer([Entry::file("GNUSparseFile.0/f", sparse)
                .pax("GNU.sparse.major", "1")
                .pax("GNU.sparse.minor", "0")
                .pax("GNU.sparse.name", "f")
                .pax("GNU.sparse.realsize", "1048576")])],
            &["f = <1048576 bytes> holes"],
        ),
        sees(
            "a global PAX header",
            "`git archive` writes one; its comment is ignored",
            vec![
                LayerBuilder::gzip()
                    .stream(
                        Entry::new(EntryType::XGlobalHeader, "pax_global_header"),
                        global.len() as u64,
                        &global[..],
                    )
                    .file("f", "x")
                    .finish(),
            ],
            &["f = x"],
        ),
        sees(
            "headers of Unix version 7, ustar and star",
            "no format is preferred",
            vec![raw(&[
                (Format::V7, member("v7", 1000)),
                (Format::Ustar, member(&format!("{}/ustar", "d".repeat(90)), 1000)),
                (Format::Star, member("star", 1000)),
            ])],
            &[
                "v7 = x 1000:1000",
                "star = x 1000:1000",
                &format!("{}/", "d".repeat(90)),
                &format!("{}/ustar = x 1000:1000", "d".repeat(90)),
            ],
        ),
        sees(
            "GNU tar's long names and base-256 numbers",
            "GNU tar manual, Basic Tar Format",
            vec![raw(&[(Format::Gnu, member(&"g".repeat(150), 3_000_000))])],
            &[&format!("{}/", "d".repeat(90)), &seen(&"g".repeat(150), " = x 3000000:3000000")],
        ),
        sees(
            "a contiguous file",
            "POSIX: type 7 is a regular file for who does not know better",
            vec![layer([Entry::new(EntryType::Continuous, "f")])],
            &["f = "],
        ),
        refused(
            "an entry of a type that nobody knows",
            "what is not understood is not left out silently",
            Image::new([layer([Entry::new(EntryType::new(b'Z'), "odd"), Entry::file("f", "x")])]),
            "odd",
        ),
    ]
}

fn member(path: &str, owner: u64) -> Member {
    Member {
        path: path.into(),
        kind: Kind::File,
        link: Vec::new(),
        mode: 0o644,
        uid: owner,
        gid: owner,
        mtime: (1_700_000_000, 0),
        atime: None,
        names: (Vec::new(), Vec::new()),
        device: (0, 0),
        xattrs: Vec::new(),
        data: b"x".to_vec(),
        sparse: None,
    }
}

/// A layer of these files, each in its format, with the directory that one of them needs.
fn raw(members: &[(Format, Member)]) -> Layer {
    let mut tar = Vec::new();
    for (format, member) in members {
        // A writer has a choice; this is about the header and not about rare types.
        let choices = (0..100).map(|seed| {
            let mut bytes = Vec::new();
            append(&mut bytes, member, *format, &mut Rng::new(seed));
            bytes
        });
        tar.extend(
            choices.into_iter().find(|bytes| matches!(bytes[156], 0 | b'0' | b'L')).unwrap_or_default(),
        );
    }
    LayerBuilder::gzip().dir(format!("{}/", "d".repeat(90))).raw(&tar).finish()
}

/// A line as the description shortens it.
fn seen(path: &str, rest: &str) -> String {
    if path.len() < 100 {
        return format!("{path}{rest}");
    }
    format!("{}…{} ({} bytes){rest}", &path[..8], &path[path.len() - 8..], path.len())
}

fn plain() -> Vec<u8> {
    LayerBuilder::new(Compression::None).file("f", "x").finish().blob
}

/// A layer of the bytes `tar`, whose blob is `blob`.
fn stream(tar: &[u8], blob: Vec<u8>, compression: Compression) -> Vec<Layer> {
    vec![Layer { diff_id: digest(tar), blob, media_type: compression.media_type().to_owned() }]
}

fn streams() -> Vec<Case> {
    let tar = plain();
    let gzip = |bytes: &[u8]| Compression::Gzip.compress(bytes);
    let zstd = |bytes: &[u8]| Compression::Zstd.compress(bytes);
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"hello"].concat();
    let trailing = [&tar[..], b"anything"].concat();
    let garbage = [gzip(&tar), b"garbage".to_vec()].concat();
    let mut wrong = Image::new(stream(&tar, gzip(&tar), Compression::Gzip));
    wrong.config["rootfs"]["diff_ids"] = json!([digest(b"another layer")]);
    let (one, two) = (
        || layer([Entry::file("f", "one"), Entry::dir("d/"), Entry::file("d/one", "1")]),
        || layer([Entry::file("f", "two"), Entry::file("two", "2")]),
    );
    let none = Compression::None;
    vec![
        sees(
            "the same layer twice",
            "the topmost counts",
            vec![layer([Entry::dir("d/")]), one(), two(), one()],
            &["d/", "d/one = 1", "f = one", "two = 2"],
        ),
        sees(
            "a layer of no bytes",
            "an empty stream is an empty archive",
            [stream(&tar, gzip(&tar), Compression::Gzip), stream(b"", Vec::new(), none)].concat(),
            &["f = x"],
        ),
        sees(
            "a gzip stream of no bytes",
            "an empty stream is an empty archive",
            [stream(&tar, gzip(&tar), Compression::Gzip), stream(b"", gzip(b""), Compression::Gzip)].concat(),
            &["f = x"],
        ),
        sees("a layer that is not compressed", "by its bytes", stream(&tar, tar.clone(), none), &["f = x"]),
        sees("a zstd layer", "by its bytes", stream(&tar, zstd(&tar), Compression::Zstd), &["f = x"]),
        sees(
            "a gzip layer that is called zstd",
            "the bytes decide",
            stream(&tar, gzip(&tar), Compression::Zstd),
            &["f = x"],
        ),
        sees(
            "several gzip members",
            "RFC 1952: they are one stream",
            stream(&tar, [gzip(&tar[..700]), gzip(&tar[700..])].concat(), Compression::Gzip),
            &["f = x"],
        ),
        sees(
            "several zstd frames, and skippable ones",
            "RFC 8878: they are one stream",
            stream(
                &tar,
                [skippable.clone(), zstd(&tar[..700]), skippable, zstd(&tar[700..])].concat(),
                Compression::Zstd,
            ),
            &["f = x"],
        ),
        sees(
            "zero padding behind a gzip stream",
            "as `gzip(1)` accepts it",
            stream(&tar, [gzip(&tar), vec![0; 512]].concat(), Compression::Gzip),
            &["f = x"],
        ),
        refused(
            "garbage behind a gzip stream",
            "nothing may be in a layer that its diff ID does not cover",
            Image::new(stream(&tar, garbage, Compression::Gzip)),
            "garbage",
        ),
        refused(
            "a gzip stream without its checksum",
            "cut off six bytes before its end: corrupt",
            Image::new(stream(&tar, gzip(&tar)[..gzip(&tar).len() - 6].to_vec(), Compression::Gzip)),
            "",
        ),
        sees(
            "bytes behind the end of the archive",
            "they count for the diff ID and for nothing else",
            stream(&trailing, gzip(&trailing), Compression::Gzip),
            &["f = x"],
        ),
        sees(
            "an archive without its end",
            "two zero blocks are usual and not needed",
            stream(&tar[..1024], gzip(&tar[..1024]), Compression::Gzip),
            &["f = x"],
        ),
        refused(
            "a layer whose diff ID is another",
            "OCI image spec, config.md: the diff ID is the digest of the tar",
            wrong,
            "sha256:",
        ),
    ]
}
