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
    print(format!("{manifest:#}\n"))
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
