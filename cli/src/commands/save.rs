//! `layerstore save`, and writing archives.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use layerstore::{ArchiveForm, Error, SaveOptions};

use crate::args::{ArchiveFormat, Save};
use crate::context::Context;
use crate::errors::Failure;
use crate::new_file::Destination;
use crate::registry;

pub(super) fn run(context: &Context, args: &Save) -> Result<(), Failure> {
    let platform = match &args.platform {
        Some(text) => Some(text.parse().map_err(Error::from)?),
        None => None,
    };
    let form = match args.format {
        ArchiveFormat::Docker => ArchiveForm::Docker,
        ArchiveFormat::Oci => ArchiveForm::Oci,
    };
    let store = context.store()?;
    let names: Vec<&str> = args.images.iter().map(String::as_str).collect();
    let sources = store.evicted_sources(&names)?;
    // Mostly nothing has to be fetched.
    let client = if sources.is_empty() { None } else { Some(registry::client(&args.registry, &sources)?) };
    let options = SaveOptions { form, platform, client };
    let progress = context.progress().of_save();
    let report = archive(args.output.as_deref(), |out| {
        store.save(&names, out, &options, &|event| progress.tell(&event))
    })?;
    for note in &report.notes {
        progress.note(note);
    }
    Ok(())
}

/// Lets `write` write an archive to `path`, which gets it whole or not at all, or to standard output.
pub(super) fn archive<T>(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn io::Write) -> Result<T, Error>,
) -> Result<T, Failure> {
    let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
        if io::stdout().is_terminal() {
            return Err(Failure::usage("an archive is nothing for a terminal")
                .hint("name a file with -o, or send standard output somewhere else"));
        }
        return write(&mut io::stdout().lock()).map_err(|error| match error {
            Error::Output { source } => Failure::output(&source),
            error => error.into(),
        });
    };
    let mut destination = Destination::open(path).map_err(|source| cannot("write", path, source))?;
    let done = write(destination.file()).map_err(|error| match error {
        Error::Output { source } => cannot("write", path, source),
        error => error.into(),
    })?;
    destination.finish().map_err(|source| cannot("write", path, source))?;
    Ok(done)
}

fn cannot(action: &'static str, path: &Path, source: io::Error) -> Failure {
    Error::File { action, path: path.to_owned(), source }.into()
}
