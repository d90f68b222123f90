//! `layerstore create`, `rm`, `rename`, `diff` and `export`.

use layerstore::oci::ErrorKind;
use layerstore::{CreateOptions, Error};

use super::save::archive;
use super::tree_diff;
use crate::args::{Commit, Create, Diff, Export, RemoveContainers, Rename};
use crate::context::{Context, source_date_epoch};
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
        Err(error @ Error::ContainerMounted { .. }) => {
            Err(Failure::from(error).hint("--force unmounts it before it removes it"))
        }
        Err(error) => Err(error.into()),
    })
}

pub(super) fn rename(context: &Context, args: &Rename) -> Result<(), Failure> {
    Ok(context.store()?.rename_container(&args.container, &args.name)?)
}

pub(super) fn diff(context: &Context, args: &Diff) -> Result<(), Failure> {
    tree_diff::show(context, args.format.as_deref(), |store, listener, each| {
        store.diff(&args.container, listener, each)
    })
}

pub(super) fn commit(context: &Context, args: &Commit) -> Result<(), Failure> {
    let name = args.name.as_ref().map(|text| text.parse()).transpose().map_err(Error::from)?;
    let options = args.options(source_date_epoch()?);
    let store = context.store()?;
    let progress = context.progress().of_commit();
    let built = store.commit(&args.container, name.as_ref(), &options, &|event| progress.tell(&event))?;
    drop(progress);
    print(format!("{}\n", built.id))
}

pub(super) fn export(context: &Context, args: &Export) -> Result<(), Failure> {
    let store = context.store_to_look()?;
    let progress = context.progress();
    let exported = archive(args.output.as_deref(), |out| {
        store.export(&args.container, out, &|event| progress.tell(&event))
    })?;
    if exported.sockets > 0 {
        let what = if exported.sockets == 1 { "a socket is" } else { "sockets are" };
        progress.note(&format!("{what} left out: no archive can hold one"));
    }
    Ok(())
}
