//! How fast layerstore is on stores of many images: `benches/scale/run`.
//!
//! Whole processes of the binary are timed, as people and scripts start them: with the start of the process, the opening
//! of the store, and the printing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers"
)]

mod times;
mod unlink;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::scale::{Scale, plant};

const USAGE: &str =
    "usage: layerstore-scale times|unlink [--runs N] [--only-large] [--cpu] [--files N] [--dir DIR]
       layerstore-scale plant DIR IMAGES LAYERS";

/// What the command line says.
struct Options {
    what: String,
    /// Measured runs of each command.
    runs: usize,
    /// Leaves the store of 100,000 layers out.
    only_large: bool,
    /// Compares what the processor did with the bounds, not the time on the wall: for a machine that others use too.
    cpu: bool,
    /// How many files are unlinked.
    files: usize,
    /// Where the stores are; by default where those of the tests are.
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [what, dir, images, layers] = &words[..]
        && what == "plant"
        && let (Ok(images), Ok(layers)) = (images.parse(), layers.parse())
    {
        let sandbox = Sandbox::at(Path::new(dir)).expect("this needs root");
        sandbox.ok(["images"]);
        plant(sandbox.root(), Scale { images, layers, containers: 200 });
        return ExitCode::SUCCESS;
    }
    let Some(options) = parse(words.into_iter()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let broken = if options.what == "times" { times::run(&options) } else { unlink::run(&options) };
    for bound in &broken {
        println!("BROKEN: {bound}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Options> {
    let what = words.next().filter(|word| word == "times" || word == "unlink")?;
    let mut options = Options { what, runs: 11, only_large: false, cpu: false, files: 1_000_000, dir: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runs" => options.runs = words.next()?.parse().ok().filter(|runs| *runs > 0)?,
            "--files" => options.files = words.next()?.parse().ok().filter(|files| *files > 0)?,
            "--dir" => options.dir = Some(words.next()?.into()),
            "--only-large" => options.only_large = true,
            "--cpu" => options.cpu = true,
            _ => return None,
        }
    }
    Some(options)
}

/// A store of its own, in a folder that goes away with the value.
fn sandbox(dir: Option<&Path>) -> (Option<tempfile::TempDir>, Sandbox) {
    let own = dir.map(|dir| tempfile::Builder::new().prefix("layerstore-scale-").tempdir_in(dir).unwrap());
    let sandbox = match &own {
        Some(own) => Sandbox::at(&own.path().join("store")),
        None => Sandbox::new(),
    };
    let sandbox = sandbox.expect("this needs root");
    sandbox.ok(["images"]);
    (own, sandbox)
}
