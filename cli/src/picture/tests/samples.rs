//! Stores to be shown.

use layerstore_testkit::rng::Rng;

use crate::picture::data::{
    Filesystem, Garbage, Picture, PictureContainer, PictureImage, PictureLayer, PolicyPreview, Row, Size,
};

const NOW: i64 = 1_790_000_000;
const DAY: i64 = 86_400;
const MB: u64 = 1_000_000;

fn digest(seed: u64) -> String {
    let mut rng = Rng::new(seed);
    let words: Vec<String> = (0..4).map(|_| format!("{:016x}", rng.number())).collect();
    format!("sha256:{}", words.concat())
}

fn layer(seed: u64, blob: u64, tree: u64) -> PictureLayer {
    PictureLayer {
        diff_id: digest(seed),
        blob: Some(digest(seed + 10_000)),
        media: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        blob_bytes: blob * MB,
        tree_bytes: tree * MB,
        files: tree * 31,
        ..PictureLayer::default()
    }
}

/// An image that was last used so many days ago.
fn image(names: &[&str], days: Option<i64>, layers: &[usize]) -> PictureImage {
    PictureImage {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        id: digest(
            names.first().map_or(77, |name| name.len() as u64) + 500 + layers[layers.len() - 1] as u64,
        ),
        platform: "linux/amd64".to_owned(),
        created: Some(NOW - 100 * DAY),
        last_used: days.map(|days| NOW - days * DAY),
        pulled: None,
        layers: layers.to_vec(),
        ..PictureImage::default()
    }
}

fn row(kind: &str, count: u64, allocated: u64, reclaimable: u64) -> Row {
    Row { kind: kind.to_owned(), count, apparent: allocated, allocated, reclaimable }
}

/// Fills in what follows from the rest.
fn complete(mut picture: Picture) -> Picture {
    for (index, image) in picture.images.iter().enumerate() {
        for layer in &image.layers {
            picture.layers[*layer].images.push(index);
            picture.layers[*layer].containers += image.containers.len() as u64;
        }
    }
    for image in &mut picture.images {
        let own = |layer: &&PictureLayer| layer.images.len() == 1 && layer.containers == 0;
        image.freed = image.layers.iter().map(|i| &picture.layers[*i]).filter(own).map(bytes).sum();
    }
    let blobs = picture.layers.iter().map(|layer| layer.blob_bytes).sum();
    let trees = picture.layers.iter().map(|layer| layer.tree_bytes).sum();
    let writable = picture.containers.iter().map(|container| container.bytes).sum();
    let garbage: u64 = picture.garbage.iter().map(|garbage| garbage.bytes).sum();
    let count = picture.layers.len() as u64;
    picture.rows = vec![
        row("Blobs", count, blobs, blobs / 3),
        row("Trees", count, trees, trees / 3),
        row("Writable layers", picture.containers.len() as u64, writable, 0),
        row("Fix-ups", 0, 0, 0),
        row("Ingests", 1, garbage / 2, garbage / 2),
        row("Trash", 1, garbage / 4, garbage / 4),
        row("Database", 5, 9 * MB, 0),
        row("Unknown", 1, garbage / 4, garbage / 4),
    ];
    let total = picture.rows.iter().map(|row| row.allocated).sum();
    picture.total = Size { apparent: total, allocated: total };
    picture.filesystem =
        Filesystem { total: 5_120 * MB + (7 * total).max(34_880 * MB), available: 5_120 * MB };
    picture.made_at = NOW;
    picture
}

fn bytes(layer: &PictureLayer) -> u64 {
    layer.blob_bytes + layer.tree_bytes
}

/// A few images as people have them. Layer 0 is in images 0, 1, 2 and 6; layer 1 in images 3 and 4.
pub(super) fn store() -> Picture {
    let layers = [
        (49, 125),
        (52, 140),
        (21, 70),
        (64, 190),
        (33, 95),
        (18, 48),
        (210, 640),
        (87, 240),
        (12, 33),
        (4, 9),
        (120, 0),
        (41, 130),
        (28, 77),
        (310, 905),
        (55, 160),
        (3, 8),
        (75, 201),
        (9, 21),
        (140, 460),
        (30, 80),
    ];
    let mut images = vec![
        image(&["docker.io/library/node:22", "node:lts"], Some(0), &[0, 2, 3, 4]),
        image(&["registry.example.com/shop/frontend:1.14.2"], Some(3), &[0, 5, 6]),
        image(&["registry.example.com/shop/frontend:1.13.0"], Some(45), &[0, 7, 8, 9]),
        image(&["postgres:17"], Some(12), &[1, 11, 12]),
        image(&["registry.example.com/ml/training:2026-01"], Some(200), &[1, 13, 14, 15]),
        image(&[], Some(70), &[16, 17]),
        image(&["debian:bookworm"], None, &[0]),
        image(&["registry.example.com/tools/build:latest"], None, &[18, 19]),
    ];
    images[1].containers = vec!["shop-1".to_owned(), "shop-2".to_owned()];
    images[3].containers = vec!["database".to_owned()];
    images[3].pinned = true;
    let container = |name: &str, image: &str, size: u64| PictureContainer {
        name: name.to_owned(),
        image: image.to_owned(),
        used: if name == "shop-1" { "by process 4711 (node)".to_owned() } else { String::new() },
        bytes: size * MB,
    };
    let policy = |command: &str, freed: u64, images: &[usize], garbage, note: &str| PolicyPreview {
        command: command.to_owned(),
        freed: freed * MB,
        images: images.to_vec(),
        garbage,
        note: note.to_owned(),
    };
    complete(Picture {
        root: "/var/lib/layerstore".to_owned(),
        layers: layers.iter().zip(0..).map(|(&(blob, tree), seed)| layer(seed, blob, tree)).collect(),
        images,
        containers: vec![
            container("shop-1", "registry.example.com/shop/frontend:1.14.2", 160),
            container("shop-2", "registry.example.com/shop/frontend:1.14.2", 12),
            container("database", "postgres:17", 420),
        ],
        garbage: vec![
            Garbage { what: "a pull that ended early".to_owned(), bytes: 130 * MB },
            Garbage { what: "unknown: overlay2/old".to_owned(), bytes: 44 * MB },
        ],
        policies: vec![
            policy("layerstore image prune", 306, &[5], false, "images without a name"),
            policy("layerstore image prune -a", 3_500, &[0, 2, 4, 5, 6, 7], false, ""),
            policy("layerstore gc --unused-for 30d", 1_940, &[2, 4, 5], true, "postgres:17 is pinned"),
            policy("layerstore gc --keep-last 1", 559, &[2], true, "the newest of each repository stays"),
        ],
        ..Picture::default()
    })
}

/// So many images with so many layers each, and the last of them also in the next image.
pub(super) fn large(images: usize, layers: usize) -> Picture {
    let mut rng = Rng::new(7);
    let mut picture = Picture { root: "/var/lib/layerstore".to_owned(), ..Picture::default() };
    for index in 0..images {
        let first = picture.layers.len();
        for _ in 0..layers {
            let (blob, tree) = (1 + rng.below(40), 1 + rng.below(120));
            picture.layers.push(layer(picture.layers.len() as u64, blob, tree));
        }
        let mut stack: Vec<usize> = (first..first + layers).collect();
        if layers > 1 && index > 0 {
            stack.insert(0, first - 1);
        }
        let name = format!("registry.example.com/team-{}/service-{index}:{}", index % 17, index % 5);
        let days = (index % 7 > 0).then(|| i64::try_from(rng.below(300)).unwrap());
        picture.images.push(image(&[&name], days, &stack));
    }
    let every = |n: usize| (0..images).step_by(n).collect();
    picture.policies = vec![
        PolicyPreview {
            command: "layerstore gc --unused-for 30d".to_owned(),
            images: every(3),
            ..PolicyPreview::default()
        },
        PolicyPreview {
            command: "layerstore gc --keep-last 3".to_owned(),
            images: every(2),
            ..PolicyPreview::default()
        },
    ];
    complete(picture)
}

/// What would run, be fetched, or break out, were it ever taken for more than text.
pub(super) const EVIL: &str = "<!--<script </script <script src=x </script><script>window.pwned=1</script><img src=x onerror=\"window.pwned=2\">\
    --><svg onload=window.pwned=3>'\"`${window.pwned=4}&lt;&amp;{{data}}{{script}}\u{2028}\u{2029}\u{202e}gnp\u{0}\\";

/// A store in which every text is [`EVIL`].
pub(super) fn hostile() -> Picture {
    let mut picture = store();
    let evil = || EVIL.to_owned();
    picture.root = evil();
    for image in &mut picture.images {
        image.names = vec![evil(), "__proto__".to_owned(), "constructor".to_owned()];
        (image.id, image.platform) = (evil(), evil());
        image.containers.iter_mut().for_each(|name| *name = evil());
        image.created = Some(i64::MAX);
    }
    for layer in &mut picture.layers {
        (layer.diff_id, layer.blob, layer.media) = (evil(), Some(evil()), evil());
    }
    for container in &mut picture.containers {
        (container.name, container.image, container.used) = (evil(), evil(), evil());
    }
    picture.garbage.iter_mut().for_each(|garbage| garbage.what = evil());
    picture.rows.iter_mut().for_each(|row| row.kind = evil());
    for policy in &mut picture.policies {
        (policy.command, policy.note) = (evil(), evil());
    }
    picture
}
