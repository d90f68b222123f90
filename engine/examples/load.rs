//! Loads an archive into a store and mounts its first image:
//! `cargo run --example load -- ROOT ARCHIVE MOUNTPOINT`
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::path::{Path, PathBuf};

use layerstore::{Event, Layerstore, LoadOptions, Source};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [root, archive, mount_point] = arguments.as_slice() else {
        return Err("usage: load ROOT ARCHIVE MOUNTPOINT".into());
    };
    let store = Layerstore::open(root)?;
    let listener = |event: Event| {
        if let Event::Layer { name, state, .. } = event {
            println!("{}: {state:?}", name.short());
        }
    };
    let report = store.load(Source::Path(archive.clone()), &LoadOptions::default(), &listener)?;
    for image in &report.images {
        println!("loaded {} as {:?}", image.id, image.names);
    }
    if let Some(image) = report.images.first() {
        let mounted = store.mount(&image.id.to_string(), Some(Path::new(mount_point)), &|_| {})?;
        println!("mounted at {}", mounted.display());
    }
    Ok(())
}
