//! The images that the processes of a soak work on: the same few layers in different stacks.

use std::path::PathBuf;

use layerstore_testkit::docker::Archive;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Compression, Entry, Layer, LayerBuilder};
use layerstore_testkit::sandbox::Sandbox;

/// Which layers the images that everybody loads and removes are stacked from, lowest first.
const STACKS: [&[usize]; 7] =
    [&[0, 1, 2], &[0, 2, 1], &[1, 3], &[0, 1, 4, 5], &[4, 6], &[0, 1, LINKING], &[2, 1, LINKING]];

/// A layer with a hard link to what a layer below has: what is stacked with it needs a fix-up. Layer 1 has the
/// file.
const LINKING: usize = 7;

/// Files of the bigger image's own layer.
const MANY: usize = 3000;

/// An image, the archives that hold it, and what must be seen in it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: String,
    /// An OCI archive and a docker-archive with the same layers, which are other blobs there.
    pub(super) archives: [PathBuf; 2],
    pub(super) image: Image,
    /// Names in its root, sorted.
    pub(super) files: Vec<String>,
    /// One of its files, and what that contains.
    pub(super) file: (String, String),
}

/// A number of small files; their first says which layer this is.
fn layer(compression: Compression, number: usize) -> Layer {
    let mut builder = LayerBuilder::new(compression);
    if number == LINKING {
        builder = builder.entry(Entry::hard_link("linked", "known-1"));
    }
    for (name, content) in files(number) {
        builder = builder.file(name, content);
    }
    builder.finish()
}

fn files(number: usize) -> impl Iterator<Item = (String, String)> {
    let many = (1..12).map(move |i| (format!("f{number}-{i}"), format!("{number} {i} ").repeat(i * 90)));
    std::iter::once((format!("known-{number}"), format!("this is layer {number}\n"))).chain(many)
}

impl Known {
    fn new(store: &Sandbox, name: &str, stack: &[usize]) -> Self {
        let with = |compression| Image::new(stack.iter().map(|number| layer(compression, *number)));
        let mut names: Vec<_> =
            stack.iter().flat_map(|number| files(*number)).map(|(name, _)| name).collect();
        if stack.contains(&LINKING) {
            names.push("linked".to_owned());
        }
        let top = stack.last().unwrap();
        Self::build(
            store,
            name,
            &with(Compression::Gzip),
            &with(Compression::None),
            names,
            (format!("known-{top}"), format!("this is layer {top}\n")),
        )
    }

    fn build(
        store: &Sandbox,
        name: &str,
        oci: &Image,
        docker: &Image,
        mut files: Vec<String>,
        file: (String, String),
    ) -> Self {
        files.sort();
        let stem = name.replace(['/', ':'], "_");
        let archives = [
            store.write(&format!("{stem}.oci.tar"), &Layout::of(name, oci).archive()),
            store.write(&format!("{stem}.docker.tar"), &Archive::new().image(&[name], docker).legacy()),
        ];
        Self { name: name.to_owned(), archives, image: oci.clone(), files, file }
    }

    /// One with many files, on the layer that most have.
    fn big(store: &Sandbox) -> Self {
        let own = (0..MANY)
            .fold(LayerBuilder::gzip(), |b, i| b.file(format!("big-{i}"), "big ".repeat(i % 50)))
            .finish();
        let image = Image::new([layer(Compression::Gzip, 0), own]);
        let names = files(0).map(|(name, _)| name).chain((0..MANY).map(|i| format!("big-{i}"))).collect();
        Self::build(store, "localhost/big:1", &image, &image, names, ("big-1".to_owned(), "big ".to_owned()))
    }
}

/// What everybody works on.
pub(super) fn shared(store: &Sandbox) -> Vec<Known> {
    let mut shared: Vec<_> = STACKS
        .iter()
        .enumerate()
        .map(|(i, stack)| Known::new(store, &format!("localhost/shared:{i}"), stack))
        .collect();
    shared.push(Known::big(store));
    shared
}

/// What one worker alone has names for: a layer of its own on shared ones, which others remove with their images.
pub(super) fn private(store: &Sandbox, worker: usize) -> Vec<Known> {
    let own = 100 + worker;
    let stacks: [&[usize]; 3] = [&[0, 1, own], &[4, own, 2], &[1, own, LINKING]];
    let name = |i: usize| format!("localhost/of-{worker}:{i}");
    stacks.iter().enumerate().map(|(i, stack)| Known::new(store, &name(i), stack)).collect()
}

/// A name of one worker alone for an image that the others have as well.
pub(super) fn alias(store: &Sandbox, worker: usize) -> Known {
    Known::new(store, &format!("localhost/alias-{worker}:1"), STACKS[worker % STACKS.len()])
}
