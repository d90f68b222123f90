//! Writes the first inputs of every target, the same each time: `seeds DIRECTORY` fills `DIRECTORY/TARGET`.

use std::fs;
use std::path::{Path, PathBuf};

use layerstore_fuzz::Item;
use layerstore_fuzz::plan::{Plan, archive};
use layerstore_tar::{Entry, Segment, Timestamp};
use layerstore_testkit::docker;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{self, Compression, EntryType, LayerBuilder};
use layerstore_testkit::rawtar::{self, Names};
use layerstore_testkit::rng::Rng;

struct Seeds {
    directory: PathBuf,
}

impl Seeds {
    fn put(&self, target: &str, name: &str, bytes: &[u8]) {
        let directory = self.directory.join(target);
        fs::create_dir_all(&directory).expect("the corpus is a directory");
        fs::write(directory.join(format!("seed-{name}")), bytes).expect("a seed is written");
    }

    fn put_all(&self, target: &str, seeds: &[&str]) {
        for (number, seed) in seeds.iter().enumerate() {
            self.put(target, &number.to_string(), seed.as_bytes());
        }
    }
}

fn main() {
    let directory = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("corpus"), PathBuf::from);
    let seeds = Seeds { directory };
    for (name, tar) in tars() {
        seeds.put("tar", name, &tar);
        seeds.put("layer", name, &tar);
        for (form, compression) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
            let blob = compression.compress(&tar);
            seeds.put("layer", &format!("{name}-{form}"), &blob);
            seeds.put("decode", &format!("{name}-{form}"), &[&[0], &blob[..]].concat());
        }
    }
    let mut rng = Rng::new(0);
    for number in 0..48 {
        // In all the formats that writers have produced.
        seeds.put("tar", &format!("any-{number}"), &rawtar::archive(&mut rng, Names::Any));
        seeds.put("layer", &format!("tree-{number}"), &rawtar::archive(&mut rng, Names::Tree));
    }
    entries(&seeds);
    decode(&seeds);
    documents(&seeds);
    seeds.put_all("reference", REFERENCES);
    seeds.put("reference", "digest", format!("a@sha256:{}", "0f".repeat(32)).as_bytes());
    seeds.put("reference", "sha512", format!("sha512:{}", "a9".repeat(64)).as_bytes());
}

/// Archives as tools write them, and some that no tool writes.
fn tars() -> Vec<(&'static str, Vec<u8>)> {
    let plain = LayerBuilder::new(Compression::None)
        .dir("etc/")
        .file("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
        .symlink("etc/mtab", "/proc/mounts")
        .hard_link("etc/shadow", "etc/passwd")
        .entry(layer::Entry::device("dev/null", 1, 3).mode(0o666))
        .entry(layer::Entry::new(EntryType::Fifo, "run/pipe"))
        .whiteout("etc/hosts")
        .opaque("var/cache")
        .entry(layer::Entry::file("bin/ping", "x").mode(0o4755).owner(3_000_000, 5).mtime(1_700_000_000, 7))
        .entry(layer::Entry::file("x", "y").xattr("user.k", "v").xattr("trusted.overlay.opaque", "y"));
    let hostile = LayerBuilder::new(Compression::None)
        .symlink("out", "/")
        .file("out/a", "through a link")
        .symlink("up", "..")
        .file("up/canary/file", "through a link")
        .file("/b", "absolute")
        .symlink("b", "loop")
        .symlink("loop", "b")
        .dir("out/canary")
        .whiteout("up/canary/dir")
        .entry(layer::Entry::new(EntryType::new(b'V'), "label"));
    let dots = LayerBuilder::new(Compression::None).file("../canary/file", "dots");
    let gnu = LayerBuilder::new(Compression::None)
        .entry(layer::Entry::new(EntryType::GNULongName, "././@LongLink"))
        .file("a".repeat(200), "long");
    let global = LayerBuilder::new(Compression::None)
        .stream(layer::Entry::new(EntryType::XGlobalHeader, "pax"), 19, &b"19 comment=nothing\n"[..])
        .file("f", "");
    let mut all: Vec<(&'static str, Vec<u8>)> = [
        ("plain", plain),
        ("hostile", hostile),
        ("dots", dots),
        ("gnu", gnu),
        ("global", global),
        ("empty", LayerBuilder::new(Compression::None)),
    ]
    .map(|(name, builder)| (name, builder.finish().blob))
    .into();
    all.push(("own", archive(&own())));
    all.push(("sparse-pax", pax_sparse()));
    all.push(("sparse-gnu", gnu_sparse()));
    all
}

/// What only layerstore's own writer says in its own way.
fn own() -> Vec<Item> {
    let item = |entry: Entry, data: &[u8]| Item { entry, data: data.to_vec() };
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    let map = vec![Segment { offset: 512, len: 512 }, Segment { offset: 4096, len: 3 }];
    let sparse = Entry { sparse: Some(map), archived_size: 515, ..Entry::regular(b"sparse", 10_000) };
    vec![
        item(Entry { mtime: time(-5, 5), ..Entry::directory(b"./") }, b""),
        item(Entry { uid: 1 << 40, gid: 7, ..Entry::regular(&[b'p'; 300], 3) }, b"abc"),
        item(Entry { atime: Some(time(1, 2)), ctime: Some(time(3, 4)), ..Entry::fifo(b"fifo") }, b""),
        item(Entry { xattrs: vec![(b"user.a=b".to_vec(), b"c".to_vec())], ..Entry::regular(b"x", 0) }, b""),
        item(Entry::symlink(b"l", &[b'l'; 300]), b""),
        item(sparse, &[7; 515]),
    ]
}

/// The older PAX forms, whose map is in the records.
fn pax_sparse() -> Vec<u8> {
    LayerBuilder::new(Compression::None)
        .entry(
            layer::Entry::file("zero", [1; 512])
                .pax("GNU.sparse.size", "1024")
                .pax("GNU.sparse.numblocks", "1")
                .pax("GNU.sparse.offset", "512")
                .pax("GNU.sparse.numbytes", "512"),
        )
        .entry(
            layer::Entry::file("one", [2; 513])
                .pax("GNU.sparse.major", "0")
                .pax("GNU.sparse.minor", "1")
                .pax("GNU.sparse.name", "renamed")
                .pax("GNU.sparse.size", "1025")
                .pax("GNU.sparse.numblocks", "2")
                .pax("GNU.sparse.map", "0,512,1024,1"),
        )
        .finish()
        .blob
}

/// The old GNU form with one extension block.
fn gnu_sparse() -> Vec<u8> {
    let mut tar = archive(&[Item { entry: Entry::regular(b"sparse", 1), data: vec![9] }]);
    tar[156] = b'S';
    tar[257..265].copy_from_slice(b"ustar  \0");
    tar[386..410].copy_from_slice(b"00000000000\x0000000000001\0");
    tar[482] = 1;
    tar[483..495].copy_from_slice(b"00000004000\0");
    tar[148..156].fill(b' ');
    let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut extension = [0; 512];
    extension[..24].copy_from_slice(b"00000004000\x0000000000000\0");
    tar.splice(512..512, extension);
    tar
}

/// Programs for [`Plan`]: some by hand, and many by lot.
fn entries(seeds: &Seeds) {
    // Bytes as the plan reads them: kinds of entries, and names.
    let [file, dir, link, hard, hidden] = [0, 8, 14, 19, 29];
    let [a, b, c, end] = [0, 15, 29, 128];
    let op = |kind: u8, path: [u8; 4], link: [u8; 4]| {
        // Mode 0755 and what else makes a plain entry, with one extended attribute.
        let rest = [0xed, 1, 0, 5, 170, 0, 3, 0];
        [&[kind][..], &path, &link, &rest].concat()
    };
    let by_hand: [&[Vec<u8>]; 6] = [
        &[
            op(dir, [a, end, 0, 0], [0; 4]),
            op(file, [a, b, end, 0], [0; 4]),
            op(file, [a, b, c, end], [0; 4]),
        ],
        &[
            op(link, [a, end, 0, 0], [236, 0, 0, 0]),
            op(file, [a, 60, end, 0], [0; 4]),
            op(file, [a, a, b, c], [0; 4]),
            op(dir, [a, b, end, 0], [0; 4]),
        ],
        &[
            op(link, [b, end, 0, 0], [228, 0, 0, 0]),
            op(dir, [b, 58, a, end], [0; 4]),
            op(file, [b, 58, a, 60], [0; 4]),
            op(hidden, [b, 58, 60, end], [1, 0, 0, 0]),
        ],
        &[
            op(file, [a, b, end, 0], [0; 4]),
            op(hard, [c, end, 0, 0], [a, b, end, 0]),
            op(link, [a, end, 0, 0], [b, end, 0, 0]),
        ],
        &[
            op(hidden, [a, b, end, 0], [1, 0, 0, 0]),
            op(hidden, [a, b, end, 0], [0; 4]),
            op(dir, [a, end, 0, 0], [0; 4]),
        ],
        &[
            op(link, [b, end, 0, 0], [c, end, 0, 0]),
            op(hidden, [b, a, end, 0], [1, 0, 0, 0]),
            op(file, [c, a, end, 0], [0; 4]),
        ],
    ];
    for (number, ops) in by_hand.iter().enumerate() {
        seeds.put("entries", &format!("hand-{number}"), &[&[0xff], ops.concat().as_slice()].concat());
    }
    let mut rng = Rng::new(1);
    for number in 0..64 {
        let length = 1 + 17 * (1 + number / 2);
        let input = rng.bytes(length);
        seeds.put("entries", &format!("lot-{number}"), &input);
        let layer = archive(&Plan::new(&input, Path::new("/canary")).items);
        if number % 4 == 0 && layer.len() < 1 << 15 {
            seeds.put("layer", &format!("lot-{number}"), &layer);
            seeds.put("tar", &format!("lot-{number}"), &layer);
        }
    }
}

fn decode(seeds: &Seeds) {
    let gzip = |data: &[u8]| Compression::Gzip.compress(data);
    let zstd = |data: &[u8]| Compression::Zstd.compress(data);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    for (name, stream) in [
        ("members", [gzip(b"one"), gzip(b""), gzip(&[7; 5000])].concat()),
        ("padded", [gzip(b"one"), vec![0; 100]].concat()),
        ("frames", [skippable.clone(), zstd(b"one"), skippable, zstd(&[7; 5000])].concat()),
        ("bomb", gzip(&vec![0; 2 << 20])),
        ("zstd-bomb", zstd(&vec![0; 2 << 20])),
        ("plain", b"plain".to_vec()),
    ] {
        seeds.put("decode", name, &[&[0], &stream[..]].concat());
    }
    for first in 0..=255 {
        let program: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(first) ^ first).collect();
        seeds.put("decode", &format!("pieces-{first}"), &[&[1], &program[..]].concat());
    }
}

fn documents(seeds: &Seeds) {
    let layer = |path: &str| LayerBuilder::gzip().file(path, "data").finish();
    let image = Image::new([layer("a"), layer("b")]);
    let arm = Image::new([layer("c")]).platform("linux", "arm", Some("v6"));
    let layouts = [
        Layout::of("localhost/a:1", &image),
        Layout::new().platforms("localhost/multi:1", &[image.clone(), arm.clone()]),
        Layout::new(),
    ];
    for (number, layout) in layouts.iter().enumerate() {
        seeds.put("archive", &format!("oci-{number}"), &layout.archive());
        seeds.put("document", &format!("index-{number}"), layout.index.to_string().as_bytes());
    }
    let docker = docker::Archive::new().image(&["localhost/a:1", "localhost/a:2"], &image).image(&[], &arm);
    seeds.put("archive", "docker-old", &docker.legacy());
    seeds.put("archive", "docker", &docker.modern());
    seeds.put("archive", "docker-gzip", &Compression::Gzip.compress(&docker.modern()));
    seeds.put("archive", "rootfs", &tars().swap_remove(0).1);
    for (name, image) in [("image", &image), ("arm", &arm)] {
        seeds.put("document", &format!("config-{name}"), &image.config_bytes());
        seeds.put("document", &format!("manifest-{name}"), image.manifest().to_string().as_bytes());
    }
    seeds.put_all("document", DOCUMENTS);
}

const DOCUMENTS: &[&str] = &[
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}"#,
    r#"{"schemaVersion":1,"fsLayers":[]}"#,
    r#"{"rootfs":{"type":"layers","diff_ids":null},"history":[{"empty_layer":true,"comment":null}],
        "config":{"ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":null},"Entrypoint":"sh","Labels":{"a":null},
        "Healthcheck":{"Test":["NONE"],"Interval":1},"StopTimeout":5,"Shell":["sh"],"OnBuild":[]}}"#,
];

const REFERENCES: &[&str] = &[
    "nginx",
    "user/app:tag",
    "index.docker.io/library/a",
    "docker.io/my.org/app",
    "localhost:5000/a__b/c--d:v1.2-3",
    "[::1]:5000/a/b",
    "Host/a",
    "linux/arm64/v8",
    "linux/arm64/v9.1",
    "windows(10.0.17763)/amd64",
    "armhf",
    "macos/x86_64/v3",
    "a/./../b//c",
    "application/vnd.oci.image.layer.v1.tar+zstd",
];
