//! `layerstore pull`.

use layerstore::oci::Reference;
use layerstore::registry::Client;
use layerstore::{Error, Layerstore, PullOptions, PullReport, When};

use crate::args::{Pull, PullPolicy};
use crate::context::Context;
use crate::errors::{Exit, Failure, Failures, for_each};
use crate::format::printable;
use crate::output::print;
use crate::registry;

pub(super) fn run(context: &Context, args: &Pull) -> Result<(), Failures> {
    let mut references = Vec::with_capacity(args.images.len());
    for name in &args.images {
        let reference: Reference = name.parse().map_err(Error::from)?;
        if args.all_tags && (has_tag(name) || reference.digest().is_some()) {
            return Err(Failure::usage("a tag or digest cannot be given together with --all-tags").into());
        }
        references.push((name, reference));
    }
    let store = context.store()?;
    let mut policy = store.unpack_policy().map_err(Failure::from)?;
    for (name, value) in &args.limits {
        policy.set(name, value).map_err(Failure::from)?;
    }
    let platform = match &args.platform {
        Some(text) => Some(text.parse().map_err(Error::from)?),
        None => None,
    };
    let options = PullOptions {
        platform,
        all_platforms: args.all_platforms,
        keep_packed: args.no_unpack,
        when: match args.policy {
            PullPolicy::Always => When::Always,
            PullPolicy::Missing => When::Missing,
            PullPolicy::Newer => When::Newer,
        },
        force: args.force,
        downloads: Some(args.parallel.into()),
        policy: Some(policy),
    };
    let client = registry::client(&args.registry, references.iter().map(|(_, reference)| reference))?;
    let mut failures = Vec::new();
    for (name, reference) in references {
        let wanted = if args.all_tags {
            all_tags(context, &client, &reference)
        } else {
            if !has_tag(name) && reference.digest().is_none() {
                context.talk("Using default tag: latest");
            }
            Ok(vec![reference])
        };
        match wanted.map(|wanted| for_each(wanted, |name| one(context, &store, &client, &name, &options))) {
            Ok(Ok(())) => {}
            // One tag need not be what the others are.
            Ok(Err(failed)) => failures.extend(failed.0),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
}

/// Every tag of a repository; those that are no tags are told and left out.
fn all_tags(context: &Context, client: &Client, repository: &Reference) -> Result<Vec<Reference>, Failure> {
    let progress = context.progress();
    let tags = Layerstore::remote_tags(client, repository, &|event| progress.tell(&event))?;
    let mut names = Vec::with_capacity(tags.len());
    for tag in tags {
        match repository.with_tag(&tag) {
            Ok(name) => names.push(name),
            Err(error) => progress.note(&error.to_string()),
        }
    }
    if names.is_empty() {
        let sentence = format!("`{}` has no tags", printable(repository.familiar_repository()));
        return Err(Failure { exit: Exit::NotFound, sentence, hints: Vec::new() });
    }
    Ok(names)
}

/// Whether a tag is given in so many words.
fn has_tag(name: &str) -> bool {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    name.rsplit_once('/').map_or(name, |(_, last)| last).contains(':')
}

fn one(
    context: &Context,
    store: &Layerstore,
    client: &Client,
    reference: &Reference,
    options: &PullOptions,
) -> Result<(), Failure> {
    let progress = context.progress().of_pull();
    let what = reference.tag().map(str::to_owned).or_else(|| Some(reference.digest()?.to_string()));
    progress.say(&format!("{}: Pulling from {}", what.unwrap_or_default(), reference.path()));
    let result = store.pull(client, reference, options, &|event| progress.tell(&event));
    if let Ok(report) = &result {
        for note in &report.notes {
            progress.note(note);
        }
    }
    // The bars go before anything else is printed.
    drop(progress);
    print(closing(&result?, context.quiet))
}

/// The lines with which Docker ends; the last names the image in full.
fn closing(report: &PullReport, quiet: bool) -> String {
    let name = printable(&report.reference.to_string());
    if quiet {
        return format!("{name}\n");
    }
    let familiar = printable(&report.reference.familiar());
    let status = if report.changed { "Downloaded newer image for" } else { "Image is up to date for" };
    format!("Digest: {}\nStatus: {status} {familiar}\n{name}\n", report.target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        assert!(has_tag("a:1") && has_tag("localhost:5000/a:1") && has_tag("a:1@sha256:00"));
        assert!(!has_tag("a") && !has_tag("localhost:5000/a") && !has_tag("a@sha256:00"));
    }
}
