//! Cases of what becomes of a layer, as data: `fixtures/layers/cases.toml` says what they are.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use toml::Table;

use crate::image::Image;
use crate::layer::{Entry, EntryType, Layer, LayerBuilder};
use crate::require::workspace;
use crate::tree::Snapshot;

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is about, as a sentence without a verb.
    pub name: String,
    /// Why it comes out as it does.
    pub rule: String,
    /// The layer alone.
    pub alone: Look,
    /// The layer in the middle of three.
    pub stacked: Look,
}

/// An image of a case, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Look {
    /// The image.
    pub image: Image,
    /// All that is seen, as [`describe`] says it, or what the refusal names.
    pub expected: Result<Vec<String>, String>,
}

/// All cases.
pub fn all() -> Vec<Case> {
    let path = workspace().join("fixtures/layers/cases.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    let table: Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    table["case"].as_array().unwrap().iter().map(|case| read(case.as_table().unwrap())).collect()
}

fn read(case: &Table) -> Case {
    let text = |key: &str| case.get(key).map(|value| value.as_str().unwrap().to_owned());
    let list = |key: &str| {
        let values = case.get(key)?.as_array().unwrap();
        Some(values.iter().map(|value| value.as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    let name = text("name").unwrap();
    for key in case.keys() {
        let known =
            ["name", "rule", "below", "layer", "above", "alone", "stacked", "refused", "alone_refused"];
        assert!(known.contains(&key.as_str()), "the case `{name}` has an unknown key `{key}`");
    }
    let layer = layer(&list("layer").unwrap());
    let (below, above) = (list("below"), list("above"));
    let mut stacked = list("stacked").unwrap_or_default();
    for (given, own) in [(&below, "base = x"), (&above, "top = x")] {
        // An opaque root hides what is below it.
        if given.is_none() {
            stacked.push(own.to_owned());
        }
    }
    stacked.sort();
    let image =
        |lines: Option<Vec<String>>, own: &str| self::layer(&lines.unwrap_or_else(|| vec![own.to_owned()]));
    let layers = [image(below, "base = x"), layer.clone(), image(above, "top = x")];
    let mut alone = list("alone").unwrap_or_default();
    alone.sort();
    let refused = text("refused");
    Case {
        alone: Look {
            image: Image::new([layer]),
            expected: text("alone_refused").or_else(|| refused.clone()).map_or(Ok(alone), Err),
        },
        stacked: Look { image: Image::new(layers), expected: refused.map_or(Ok(stacked), Err) },
        rule: text("rule").unwrap(),
        name,
    }
}

fn layer(lines: &[String]) -> Layer {
    lines.iter().fold(LayerBuilder::gzip(), |layer, line| layer.entry(entry(line))).finish()
}

/// Reads a line such as `d/f = text 4755`.
fn entry(line: &str) -> Entry {
    let (line, mode) = match line.rsplit_once(' ') {
        Some((rest, mode)) if mode.len() == 4 && mode.bytes().all(|c| (b'0'..=b'7').contains(&c)) => {
            (rest, Some(u32::from_str_radix(mode, 8).unwrap()))
        }
        _ => (line, None),
    };
    let entry = if let Some((path, target)) = line.split_once(" -> ") {
        Entry::symlink(path, target)
    } else if let Some((path, target)) = line.split_once(" => ") {
        Entry::hard_link(path, target)
    } else if let Some((path, text)) = line.split_once(" = ") {
        Entry::file(path, text)
    } else if let Some(path) = line.strip_suffix(" |") {
        Entry::new(EntryType::Fifo, path)
    } else if let Some((path, numbers)) = line.split_once(" c ") {
        let (major, minor) = numbers.split_once(' ').unwrap();
        Entry::device(path, major.parse().unwrap(), minor.parse().unwrap())
    } else if line.ends_with('/') {
        Entry::dir(line)
    } else {
        // A whiteout, mostly.
        Entry::file(line, "")
    };
    mode.map_or(entry.clone(), |mode| entry.mode(mode))
}

/// All that is in the directory `root`, in the words of the cases, sorted.
pub fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, entry) in Snapshot::of(root).entries {
        let text = path.escape_ascii().to_string();
        let (line, usual) = match entry.kind {
            FileType::Directory if path.is_empty() && entry.mode == 0o755 => continue,
            FileType::Directory if path.is_empty() => ("./".to_owned(), 0o755),
            FileType::Directory => (format!("{text}/"), 0o755),
            FileType::RegularFile => {
                let content = fs::read(root.join(OsStr::from_bytes(&path))).unwrap();
                (format!("{text} = {}", content.escape_ascii()), 0o644)
            }
            FileType::Symlink => (format!("{text} -> {}", entry.target.escape_ascii()), 0o777),
            FileType::Fifo => (format!("{text} |"), 0o644),
            _ => {
                let (major, minor) = (rustix::fs::major(entry.rdev), rustix::fs::minor(entry.rdev));
                (format!("{text} c {major} {minor}"), 0o644)
            }
        };
        lines.push(if entry.mode == usual { line } else { format!("{line} {:04o}", entry.mode) });
    }
    lines.sort();
    lines
}
