//! `layerstore import`.

use std::path::Path;

use layerstore::{Error, ImportOptions};

use super::load::source;
use crate::args::Import;
use crate::context::{Context, source_date_epoch};
use crate::errors::Failure;
use crate::output::print;

pub(super) fn run(context: &Context, args: &Import) -> Result<(), Failure> {
    let platform = args.platform.as_ref().map(|text| text.parse()).transpose().map_err(Error::from)?;
    let name = args.name.as_ref().map(|text| text.parse()).transpose().map_err(Error::from)?;
    let options = ImportOptions {
        changes: args.changes.clone(),
        message: args.message.clone(),
        platform,
        created: source_date_epoch()?,
    };
    if is_url(&args.file) {
        return Err(Failure::usage("import takes a file, not a URL")
            .hint("fetch it first: `curl -L URL | layerstore import -`"));
    }
    let source = source(Some(&args.file))?;
    let store = context.store()?;
    let progress = context.progress();
    let built = store.import(source, name.as_ref(), &options, &|event| progress.tell(&event))?;
    // The bars go before anything else is printed.
    drop(progress);
    print(format!("{}\n", built.id))
}

/// Docker fetches these.
fn is_url(file: &Path) -> bool {
    let name = file.to_string_lossy();
    (name.starts_with("http://") || name.starts_with("https://")) && !file.exists()
}
