//! `layerstore push`.

use layerstore::oci::Reference;
use layerstore::registry::Client;
use layerstore::{Error, Layerstore, PushOptions, PushReport};

use crate::args::Push;
use crate::context::Context;
use crate::errors::{Exit, Failure, Failures};
use crate::format::printable;
use crate::output::print;
use crate::registry;

pub(super) fn run(context: &Context, args: &Push) -> Result<(), Failures> {
    let store = context.store()?;
    let platform = match &args.platform {
        Some(text) => Some(text.parse().map_err(Error::from)?),
        None => None,
    };
    let uploads = Some(args.parallel.into());
    let options = PushOptions { platform, chunk: args.chunk_size, uploads, ..PushOptions::default() };
    if args.all_tags {
        return all_tags(context, &store, args, &options);
    }
    let destination: Option<Reference> = match &args.destination {
        Some(text) => Some(text.parse().map_err(Error::from)?),
        None => None,
    };
    // An ID has no place of its own; that is said by the push.
    let named = destination.clone().or_else(|| args.image.parse().ok());
    let sources = store.evicted_sources(&[&args.image]).map_err(Failure::from)?;
    let client = registry::client(&args.registry, named.iter().chain(&sources))?;
    one(context, &store, &client, &args.image, destination.as_ref(), &options)?;
    Ok(())
}

fn all_tags(
    context: &Context,
    store: &Layerstore,
    args: &Push,
    options: &PushOptions,
) -> Result<(), Failures> {
    let repository: Reference = args.image.parse().map_err(Error::from)?;
    let mut tags: Vec<Reference> = store
        .images()
        .map_err(Failure::from)?
        .into_iter()
        .filter_map(|image| image.reference)
        .filter(|name| name.repository() == repository.repository())
        // What was pulled by its digest may be what the tag stood for once.
        .filter(|name| name.tag().is_some() && name.digest().is_none())
        .collect();
    tags.dedup();
    if tags.is_empty() {
        let sentence = format!("no image is called `{}`", printable(repository.familiar_repository()));
        return Err(Failure { exit: Exit::NotFound, sentence, hints: Vec::new() }.into());
    }
    let names: Vec<String> = tags.iter().map(ToString::to_string).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sources = store.evicted_sources(&names).map_err(Failure::from)?;
    let client = registry::client(&args.registry, std::iter::once(&repository).chain(&sources))?;
    crate::errors::for_each(tags, |tag| one(context, store, &client, &tag.to_string(), None, options))
}

fn one(
    context: &Context,
    store: &Layerstore,
    client: &Client,
    image: &str,
    destination: Option<&Reference>,
    options: &PushOptions,
) -> Result<(), Failure> {
    let progress = context.progress().of_push();
    if let Some(name) = destination.cloned().or_else(|| image.parse().ok()) {
        progress.say(&format!("The push refers to repository [{}]", name.repository()));
    }
    let result = store.push(client, image, destination, options, &|event| progress.tell(&event));
    if let Ok(report) = &result {
        for note in &report.notes {
            progress.note(note);
        }
    }
    // The bars go before anything else is printed.
    drop(progress);
    print(closing(&result?, context.quiet))
}

/// The line with which Docker ends; with `--quiet` the name, as Docker does.
fn closing(report: &PushReport, quiet: bool) -> String {
    if quiet {
        return format!("{}\n", printable(&report.reference.to_string()));
    }
    let tag = printable(report.reference.tag().unwrap_or_default());
    format!("{tag}: digest: {} size: {}\n", report.digest, report.size)
}
