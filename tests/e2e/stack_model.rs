//! Random stacks of layers against a model: what is mounted is what a plain reading of the rules gives.
//!
//! The model applies one layer after the other to a map of paths. It shares nothing with layerstore but the rules:
//! whiteouts hide what layers below have, in any order; an opaque mark hides what is in a directory, not the directory;
//! a directory that a layer implies keeps what it was; the last of several entries counts; a hard link is another name
//! of a file of its layer, or else of what is below.

use std::collections::{BTreeMap, BTreeSet};

use layerstore_testkit::cases;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Entry, Layer, LayerBuilder};
use layerstore_testkit::require;
use layerstore_testkit::rng::Rng;
use layerstore_testkit::sandbox::Sandbox;

/// One entry of a layer.
#[derive(Clone, Debug)]
enum Item {
    Dir(String, u32),
    File(String, String),
    Link(String, String),
    Whiteout(String),
    Opaque(String),
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Dir(u32),
    File(String),
}

type Tree = BTreeMap<String, Node>;

const IMPLIED: u32 = 0o755;

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

fn below(tree: &Tree, path: &str) -> Vec<String> {
    let prefix = format!("{path}/");
    tree.keys().filter(|key| path.is_empty() || key.starts_with(&prefix)).cloned().collect()
}

/// Applies a layer to what is below it; nothing if the layer cannot be unpacked there.
fn apply(lower: &Tree, items: &[Item]) -> Option<Tree> {
    let mut own: Tree = Tree::new();
    let mut implied: BTreeSet<String> = BTreeSet::new();
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    let (mut whiteouts, mut opaque) = (BTreeSet::new(), BTreeSet::new());
    for item in items {
        let path = match item {
            Item::Whiteout(path) => {
                whiteouts.insert(path.clone());
                continue;
            }
            Item::Opaque(path) => {
                opaque.insert(path.clone());
                continue;
            }
            Item::Dir(path, _) | Item::File(path, _) | Item::Link(path, _) => path,
        };
        // What a link leads to is looked up before its directories are made.
        let linked = if let Item::Link(_, target) = item { own.get(target).cloned() } else { None };
        imply(&mut own, &mut implied, parents(path))?;
        if let (Item::Link(_, target), Some(old)) = (item, own.get(path))
            && target == path
        {
            // A name of itself.
            match old {
                Node::File(_) => continue,
                Node::Dir(_) => return None,
            }
        }
        let node = match item {
            Item::Dir(_, mode) => Some(Node::Dir(*mode)),
            Item::File(_, text) => Some(Node::File(text.clone())),
            Item::Link(_, target) => match linked {
                Some(Node::Dir(_)) => return None,
                // It would replace what it leads to.
                Some(_) if target.starts_with(&format!("{path}/")) => return None,
                Some(file) => Some(file),
                None => {
                    links.insert(path.clone(), target.clone());
                    None
                }
            },
            Item::Whiteout(_) | Item::Opaque(_) => None,
        };
        // A directory stays what it is when it is listed again.
        let stays = matches!((own.get(path), &node), (Some(Node::Dir(_)), Some(Node::Dir(_))));
        if !stays {
            for key in below(&own, path) {
                own.remove(&key);
                implied.remove(&key);
                links.remove(&key);
            }
            links.retain(|link, _| !link.starts_with(&format!("{path}/")));
        }
        implied.remove(path);
        match node {
            Some(node) => {
                links.remove(path);
                own.insert(path.clone(), node);
            }
            None => drop(own.remove(path)),
        }
    }
    let late = late_links(&own, lower, &links, &mut whiteouts)?;
    own.extend(late);
    let mut merged = lower.clone();
    for path in &whiteouts {
        for key in below(lower, path) {
            merged.remove(&key);
        }
        merged.remove(path);
        // Markers imply the directories that they are in, unless those are gone themselves.
        if !hidden(&whiteouts, &opaque, path) {
            imply(&mut own, &mut implied, parents(path))?;
        }
    }
    for path in &opaque {
        for key in below(lower, path) {
            merged.remove(&key);
        }
        if !hidden(&whiteouts, &opaque, path) && !whiteouts.contains(path) {
            imply(&mut own, &mut implied, parents(path).chain([path.as_str()]))?;
        }
    }
    for (path, node) in &own {
        match (node, merged.get(path)) {
            (Node::Dir(_), Some(Node::Dir(_))) if implied.contains(path) => continue,
            (Node::Dir(_), Some(Node::Dir(_))) => {}
            _ => {
                for key in below(&merged, path) {
                    merged.remove(&key);
                }
            }
        }
        merged.insert(path.clone(), node.clone());
    }
    Some(merged)
}

/// The hard links whose target was not there when they came. It may have come later; others lead below, and hide what
/// is in their place.
fn late_links(
    own: &Tree,
    lower: &Tree,
    links: &BTreeMap<String, String>,
    whiteouts: &mut BTreeSet<String>,
) -> Option<Tree> {
    let mut late = Tree::new();
    for (path, first) in links {
        if own.contains_key(path) {
            return None;
        }
        let mut target = first;
        for _ in 0..=links.len() {
            match links.get(target) {
                Some(next) => target = next,
                None => break,
            }
        }
        if links.contains_key(target) {
            return None;
        }
        let (found, is_lower) = match own.get(target) {
            Some(found) => (found, false),
            None => (lower.get(target)?, true),
        };
        match found {
            Node::Dir(_) => return None,
            file @ Node::File(_) => drop(late.insert(path.clone(), file.clone())),
        }
        if is_lower {
            whiteouts.insert(path.clone());
        }
    }
    Some(late)
}

/// Whether a marker above `path` hides everything there.
fn hidden(whiteouts: &BTreeSet<String>, opaque: &BTreeSet<String>, path: &str) -> bool {
    parents(path).any(|parent| whiteouts.contains(parent) || opaque.contains(parent))
}

/// Makes the directories of a marker; nothing if a file is in the way.
fn imply<'a>(
    own: &mut Tree,
    implied: &mut BTreeSet<String>,
    directories: impl Iterator<Item = &'a str>,
) -> Option<()> {
    for directory in directories {
        match own.get(directory) {
            Some(Node::Dir(_)) => {}
            Some(Node::File(_)) => return None,
            None => {
                own.insert(directory.to_owned(), Node::Dir(IMPLIED));
                implied.insert(directory.to_owned());
            }
        }
    }
    Some(())
}

fn random_path(rng: &mut Rng) -> String {
    let names: Vec<_> = (0..=rng.below(3)).map(|_| *rng.pick(&["a", "b", "c"])).collect();
    names.join("/")
}

fn random_item(rng: &mut Rng) -> Item {
    let path = random_path(rng);
    match rng.below(12) {
        0..=2 => Item::Dir(path, *rng.pick(&[0o700, 0o750, 0o755, 0o1777])),
        3..=6 => Item::File(path, format!("text {}", rng.below(1000))),
        7..=8 => Item::Link(path, random_path(rng)),
        9..=10 => Item::Whiteout(path),
        _ => Item::Opaque(path),
    }
}

fn layer(items: &[Item]) -> Layer {
    let marker = |path: &str| match path.rsplit_once('/') {
        Some((directory, name)) => format!("{directory}/.wh.{name}"),
        None => format!(".wh.{path}"),
    };
    items
        .iter()
        .fold(LayerBuilder::gzip(), |layer, item| {
            layer.entry(match item {
                Item::Dir(path, mode) => Entry::dir(format!("{path}/")).mode(*mode),
                Item::File(path, text) => Entry::file(path, text),
                Item::Link(path, target) => Entry::hard_link(path, target),
                Item::Whiteout(path) => Entry::file(marker(path), ""),
                Item::Opaque(path) => Entry::file(format!("{path}/.wh..wh..opq"), ""),
            })
        })
        .finish()
}

fn lines(tree: &Tree) -> Vec<String> {
    let mut lines: Vec<_> = tree
        .iter()
        .map(|(path, node)| match node {
            Node::Dir(IMPLIED) => format!("{path}/"),
            Node::Dir(mode) => format!("{path}/ {mode:04o}"),
            Node::File(text) => format!("{path} = {text}"),
        })
        .collect();
    lines.sort();
    lines
}

/// A stack of layers, and what it comes to: nothing if it cannot be unpacked.
fn random_stack(rng: &mut Rng) -> (Vec<Vec<Item>>, Option<Tree>) {
    let mut stack: Vec<Vec<Item>> = Vec::new();
    for _ in 0..2 + rng.below(3) {
        // Sometimes one that is there already.
        let layer = if !stack.is_empty() && rng.one_in(6) {
            rng.pick(&stack).clone()
        } else {
            (0..=rng.below(6)).map(|_| random_item(rng)).collect()
        };
        stack.push(layer);
    }
    let merged = stack.iter().try_fold(Tree::new(), |lower, items| apply(&lower, items));
    (stack, merged)
}

#[test]
fn privileged_random_stacks_are_what_a_model_says() {
    let Some(store) = Sandbox::new() else { return };
    let (count, seeds) = if require::is_long() { (400, 20) } else { (150, 1) };
    for seed in 1..=seeds {
        let mut rng = Rng::new(seed);
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        while accepted.len() < count {
            let (stack, merged) = random_stack(&mut rng);
            match merged {
                Some(tree) => accepted.push((stack, tree)),
                None => refused.push(stack),
            }
        }
        let image = |stack: &[Vec<Item>]| Image::new(stack.iter().map(|items| layer(items)));
        let name = |number: usize| format!("localhost/stack:{number}");
        let layout = accepted
            .iter()
            .enumerate()
            .fold(Layout::new(), |layout, (number, (stack, _))| layout.image(&name(number), &image(stack)));
        store.load_bytes(&layout.archive());
        for (number, (stack, tree)) in accepted.iter().enumerate() {
            let at = store.mount(&name(number));
            let seen = cases::describe(&at);
            store.umount(&at);
            assert_eq!(seen, lines(tree), "seed {seed}: mounted (left), by the model (right): {stack:#?}");
        }
        for stack in refused.iter().take(count / 5) {
            let archive =
                store.write("refused.tar", &Layout::of("localhost/refused:1", &image(stack)).archive());
            let run = store.run(["load", "-i", archive.to_str().unwrap()]);
            assert_eq!(run.code, 1, "seed {seed}: the model refuses this: {stack:#?}\n{run}");
        }
        for number in 0..accepted.len() {
            store.ok(["rmi", &name(number)]);
        }
        assert_eq!(store.sql("SELECT count(*) FROM tree"), ["0"]);
    }
}
