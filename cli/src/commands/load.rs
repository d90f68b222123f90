//! `layerstore load`.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use layerstore::{Error, LoadOptions, LoadReport, Source};

use crate::args::Load;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::printable;
use crate::output::print;

pub(super) fn run(context: &Context, args: &Load) -> Result<(), Failure> {
    let platform = match &args.platform {
        Some(text) => Some(text.parse().map_err(Error::from)?),
        None => None,
    };
    let source = source(args.input.as_deref())?;
    let store = context.store()?;
    let progress = context.progress();
    let mut policy = store.unpack_policy()?;
    for (name, value) in &args.limits {
        policy.set(name, value)?;
    }
    let options = LoadOptions { platform, unpack: !args.no_unpack, policy: Some(policy) };
    let report = store.load(source, &options, &|event| progress.tell(&event))?;
    for note in report.images.iter().flat_map(|image| &image.notes) {
        progress.note(note);
    }
    if report.images.is_empty() {
        progress.note("the archive holds no images");
    }
    // The bars go before anything else is printed.
    drop(progress);
    print(loaded(&report))
}

/// What to load or import: standard input is handed on as it is, be it a pipe, a file or a directory.
pub(super) fn source(input: Option<&Path>) -> Result<Source, Failure> {
    if let Some(path) = input.filter(|path| path.as_os_str() != "-") {
        return Ok(Source::Path(path.to_owned()));
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage("nothing to read: standard input is a terminal")
            .hint("name an archive, or send one through a pipe"));
    }
    let file = stdin.as_fd().try_clone_to_owned().map_err(|source| Error::File {
        action: "open",
        path: "/dev/stdin".into(),
        source,
    })?;
    Ok(Source::File(file.into()))
}

fn loaded(report: &LoadReport) -> String {
    let mut out = String::new();
    for image in &report.images {
        for name in &image.names {
            out.extend(["Loaded image: ", &printable(&name.familiar()), "\n"]);
        }
        if image.names.is_empty() {
            out.extend(["Loaded image ID: ", &image.id.to_string(), "\n"]);
        }
    }
    out
}
