//! `layerstore manifest inspect` and `manifest referrers`.

use layerstore::Layerstore;
use layerstore::oci::Reference;

use crate::args::{Manifest, ManifestInspect, ManifestReferrers};
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::printable;
use crate::output::print;
use crate::registry;
use crate::template::Value;

const TITLES: &[(&str, &str)] =
    &[("Digest", "DIGEST"), ("ArtifactType", "ARTIFACT TYPE"), ("MediaType", "MEDIA TYPE"), ("Size", "SIZE")];
const TABLE: &str = "table {{.Digest}}\t{{.ArtifactType}}\t{{.Size}}";

pub(super) fn run(context: &Context, verb: &Manifest) -> Result<(), Failure> {
    match verb {
        Manifest::Inspect(args) => inspect(context, args),
        Manifest::Referrers(args) => referrers(context, args),
    }
}

/// Docker's `--verbose` is the global option here.
fn inspect(context: &Context, args: &ManifestInspect) -> Result<(), Failure> {
    let reference: Reference = args.image.parse().map_err(layerstore::Error::from)?;
    let client = registry::client(&args.registry, [&reference])?;
    let progress = context.progress();
    let manifest =
        Layerstore::remote_manifest(&client, &reference, context.verbose, &|event| progress.tell(&event))?;
    drop(progress);
    print(escaped(&format!("{manifest:#}\n")))
}

/// JSON in which nothing steers a terminal: what it leaves as it is of controls and of marks that turn the direction of
/// writing around, and that only strings can hold.
fn escaped(json: &str) -> String {
    let steers = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    json.chars().map(|c| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

fn referrers(context: &Context, args: &ManifestReferrers) -> Result<(), Failure> {
    let reference: Reference = args.image.parse().map_err(layerstore::Error::from)?;
    let listing = Listing::new(args.format.as_deref().filter(|format| *format != "table").unwrap_or(TABLE))?;
    let client = registry::client(&args.registry, [&reference])?;
    let progress = context.progress();
    let artifact_type = args.artifact_type.as_deref();
    let found =
        Layerstore::remote_referrers(&client, &reference, artifact_type, &|event| progress.tell(&event))?;
    drop(progress);
    let rows: Vec<Value> = found
        .iter()
        .map(|found| {
            Value::fields([
                ("ArtifactType", Value::str(printable(found.artifact_type.as_deref().unwrap_or_default()))),
                ("Digest", Value::str(found.digest.to_string())),
                ("MediaType", Value::str(printable(&found.media_type))),
                ("Size", Value::str(found.size.to_string())),
            ])
        })
        .collect();
    print(listing.render(TITLES, &rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_manifest_steers_the_terminal() {
        assert_eq!(escaped("{\n \"a\": \"\u{9b}2J\u{202e}é\"}"), "{\n \"a\": \"\\u009b2J\\u202eé\"}");
    }
}
