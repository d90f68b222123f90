//! What `benches/compare/layers` needs to show every case to other engines.
//!
//! `cases write DIR` writes each image of each case as `DIR/ID.oci.tar`, `DIR/ID.docker.tar` and the OCI layout `DIR/ID`,
//! all with the name `localhost/ID:case`, and prints a list of them in JSON. `cases describe [--all] DIR` prints what is
//! in a directory, a line for each file, in the words of `fixtures/layers/cases.toml`.

mod extra;
mod look;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use layerstore_testkit::cases::{self, Look};
use layerstore_testkit::docker::Archive;
use layerstore_testkit::image::Layout;
use serde_json::{Value, json};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let text = match args[..] {
        ["write", dir] => write(Path::new(dir)).to_string(),
        ["describe", dir] => look::describe(Path::new(dir), false).join("\n"),
        ["describe", "--all", dir] => look::describe(Path::new(dir), true).join("\n"),
        _ => panic!("usage: cases write DIR | cases describe [--all] DIR"),
    };
    std::io::stdout().write_all(text.as_bytes()).expect("someone reads it");
}

fn write(dir: &Path) -> Value {
    let mut list = Vec::new();
    for (number, case) in cases::all().iter().enumerate() {
        for (place, look) in [("alone", &case.alone), ("stacked", &case.stacked)] {
            list.push(one(dir, &format!("c{number}-{place}"), (&case.name, &case.rule, place), look));
        }
    }
    for (number, (name, rule, look)) in extra::all().iter().enumerate() {
        list.push(one(dir, &format!("x{number}"), (name, rule, ""), look));
    }
    list.into()
}

fn one(dir: &Path, id: &str, (case, rule, place): (&str, &str, &str), look: &Look) -> Value {
    let name = format!("localhost/{id}:case");
    let layout = Layout::of(&name, &look.image);
    fs::write(dir.join(format!("{id}.oci.tar")), layout.archive()).expect("the archive can be written");
    layout.write(&dir.join(id));
    let archive = Archive::new().image(&[&name], &look.image).legacy();
    fs::write(dir.join(format!("{id}.docker.tar")), archive).expect("the archive can be written");
    json!({
        "id": id, "name": name, "case": case, "rule": rule, "place": place,
        "seen": look.expected.as_ref().ok(), "refused": look.expected.as_ref().err(),
    })
}
