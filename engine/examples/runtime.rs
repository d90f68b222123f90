//! A tiny container engine: gets an image, runs one command in a container of it, and keeps what it changed as another
//! image.
//!
//! `cargo run --example runtime -- ROOT IMAGE|ARCHIVE NEW_NAME PROGRAM [ARGUMENT…]`
//!
//! Needs root, and crun or runc. An image that is not in the store is pulled; an archive is loaded.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to a person")]

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use layerstore::oci::ErrorKind;
use layerstore::registry::{Client, Options};
use layerstore::{
    Bundle, BundleOptions, CommitOptions, CreateOptions, Event, Layerstore, LoadOptions, PullOptions, Source,
};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(image), Some(new_name)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: runtime ROOT IMAGE|ARCHIVE NEW_NAME PROGRAM [ARGUMENT…]".into());
    };
    let command: Vec<String> = arguments.collect();

    let store = Layerstore::open(Path::new(&root))?;
    let image = get(&store, &image)?;

    // The container: a writable tree above those of the image, mounted at `rootfs` in the bundle.
    let place = std::env::temp_dir().join(format!("runtime-example-{}", std::process::id()));
    let options = BundleOptions { entrypoint: Some(command), ..BundleOptions::default() };
    let bundle = store.bundle(&image, &place, &CreateOptions::default(), &options, &progress)?;
    println!("container {}", bundle.container.name);

    let result = run(&bundle).and_then(|status| {
        println!("{status}");
        keep(&store, &bundle, &new_name)?;
        Ok(status)
    });

    // Whatever happened: the mount, the writable tree and the bundle go.
    store.remove_container(&bundle.container.id, true)?;
    std::fs::remove_dir_all(&bundle.path)?;
    let status = result?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}

/// Loads an archive, or finds or pulls an image. Returns how to call it.
fn get(store: &Layerstore, image: &str) -> Result<String, Box<dyn Error>> {
    if Path::new(image).exists() {
        let report = store.load(Source::Path(image.into()), &LoadOptions::default(), &progress)?;
        let loaded = report.images.first().ok_or("the archive holds no image")?;
        return Ok(loaded.id.to_string());
    }
    match store.inspect(image) {
        Ok(_) => Ok(image.to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let client = Client::new(Options::default())?;
            let pulled = store.pull(&client, &image.parse()?, &PullOptions::default(), &progress)?;
            Ok(pulled.id.to_string())
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs the container to its end, with whichever runtime is there.
fn run(bundle: &Bundle) -> Result<ExitStatus, Box<dyn Error>> {
    let name = format!("layerstore-example-{}", std::process::id());
    for runtime in ["crun", "runc"] {
        match Command::new(runtime).args(["run", "--bundle"]).arg(&bundle.path).arg(&name).status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => return Ok(other?),
        }
    }
    Err("neither crun nor runc is there".into())
}

/// Makes an image of what the program has changed, if it has changed anything.
fn keep(store: &Layerstore, bundle: &Bundle, name: &str) -> Result<(), Box<dyn Error>> {
    let container = &bundle.container.id;
    let mut changes = 0;
    store.diff(container, &progress, &mut |change| {
        println!("{} {}", change.kind.letter(), String::from_utf8_lossy(&change.path));
        changes += 1;
        Ok(())
    })?;
    if changes > 0 {
        let built = store.commit(container, Some(&name.parse()?), &CommitOptions::default(), &progress)?;
        println!("{name} is {}", built.id);
    }
    Ok(())
}

/// Takes news of whatever is under way.
fn progress(event: Event) {
    if let Event::Note(text) = event {
        eprintln!("note: {text}");
    }
}
