//! `layerstore create`, `rm`, `rename`, `diff` and `export`.

use layerstore::CreateOptions;
use layerstore::oci::ErrorKind;

use crate::args::{Create, Diff, Export, RemoveContainers, Rename};
use crate::context::Context;
use crate::errors::{Failure, Failures, for_each};
use crate::output::print;

pub(super) fn create(context: &Context, args: &Create) -> Result<(), Failure> {
    let options = CreateOptions {
        name: args.name.clone(),
        labels: args.label.iter().cloned().collect(),
        settings: args.storage.settings().map_err(Failure::usage)?,
    };
    let store = context.store()?;
    let progress = context.progress();
    let container = store.create(&args.image, &options, &|event| progress.tell(&event))?;
    drop(progress);
    print(container.id + "\n")
}

pub(super) fn remove(context: &Context, args: &RemoveContainers) -> Result<(), Failures> {
    let store = context.store()?;
    for_each(&args.containers, |name| match store.remove_container(name, args.force) {
        // As it was called, as in Docker.
        Ok(_) => print(format!("{name}\n")),
        // What shall be gone is gone.
        Err(error) if args.force && error.kind() == ErrorKind::NotFound => {
            context.note(&error.to_string());
            Ok(())
        }
        Err(error) => Err(error.into()),
    })
}

pub(super) fn rename(context: &Context, args: &Rename) -> Result<(), Failure> {
    Ok(context.store()?.rename_container(&args.container, &args.name)?)
}

pub(super) fn diff(_context: &Context, _args: &Diff) -> Result<(), Failure> {
    Ok(())
}

pub(super) fn export(_context: &Context, _args: &Export) -> Result<(), Failure> {
    Ok(())
}
