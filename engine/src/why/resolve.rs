//! From what a person types to an object.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use layerstore_gc::familiar;
use layerstore_oci::{Digest, ErrorKind};
use layerstore_store::{DiscardFate, Graph, LOCAL, NodeKind, Object, Scan, Size};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use super::chain::Words;
use super::known::Known;
use super::{Outlook, Why};
use crate::Layerstore;
use crate::error::{Error, Result};
use crate::names::Found;
use crate::pull::KEEP_SECONDS;

/// The shortest beginning of a digest that is taken for one.
const MIN_PREFIX: usize = 4;

/// Something that was found.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) kind: String,
    pub(super) name: String,
    /// Its index, if it has a row.
    pub(super) node: Option<usize>,
    pub(super) size: Option<Size>,
    pub(super) created_at: Option<i64>,
    pub(super) file: Option<PathBuf>,
    /// What becomes of what has no row.
    outlook: Option<Outlook>,
}

impl Target {
    /// The answer for what has no row.
    pub(super) fn without_row(self) -> Result<Why> {
        let Self { kind, name, size, created_at, file, outlook, .. } = self;
        let Some(outlook) = outlook else { return Err(Error::NothingCalled { text: name }) };
        Ok(Why {
            kind,
            name,
            media_type: None,
            size,
            created_at,
            file,
            chains: Vec::new(),
            more: false,
            outlook,
        })
    }
}

impl Layerstore {
    pub(super) fn resolve(&self, known: &Known<'_>, given: &OsStr) -> Result<Target> {
        let graph = known.graph;
        let text = given.to_string_lossy();
        let text = text.as_ref();
        let nothing = || Error::NothingCalled { text: text.to_owned() };
        if let Some(path) = self.path_below(known, Path::new(given), text)? {
            return self.at_path(graph, &path, text);
        }
        // Nothing but a file has such a name.
        if given.to_str().is_none() {
            return Err(nothing());
        }
        if let Some(tree) = text.parse().ok().and_then(|id| graph.find(&Object::Tree(id))) {
            return Ok(self.node(graph, tree));
        }
        if self.is_container(text)? {
            return self.container_target(graph, text);
        }
        let digits = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha512:")).unwrap_or(text);
        let is_prefix = digits.len() >= MIN_PREFIX && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match known.find(text) {
            // What is not typed in full may also be the beginning of something else.
            Ok(found) if !is_prefix || found.by_name.is_some() => {
                return image(graph, &found).ok_or_else(nothing);
            }
            Ok(_) | Err(Error::Name(_) | Error::NoImage { .. } | Error::Ambiguous { .. }) => {}
            Err(error) => return Err(error),
        }
        if is_prefix && let Some(found) = self.by_digits(known, text, digits)? {
            return Ok(found);
        }
        let by_key = |node: &layerstore_store::Node| matches!(&node.object, Object::Snapshot { key, .. } if key == text);
        if let Some(index) = graph.nodes.iter().position(by_key) {
            return Ok(self.node(graph, index));
        }
        match self.container_target(graph, text) {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(nothing()),
            other => other,
        }
    }

    /// What has a digest that begins like this.
    fn by_digits(&self, known: &Known<'_>, text: &str, digits: &str) -> Result<Option<Target>> {
        let graph = known.graph;
        // Whatever else a blob's digest in full may be, it is the blob's.
        let blob = text.parse().ok().and_then(|digest| graph.find(&Object::Blob(digest)));
        let mut found = match blob {
            Some(index) => BTreeMap::from([(text.to_owned(), (0, Some(index)))]),
            None => self.beginning_with(graph, text, digits)?,
        };
        if found.len() > 1 {
            return Err(Error::AmbiguousDigits {
                prefix: text.to_owned(),
                found: found.into_keys().take(5).collect(),
            });
        }
        let Some((digest, (_, node))) = found.pop_first() else { return Ok(None) };
        let Some(index) = node else { return self.partial(&digest).map(Some) };
        // The digest of an image stands for the image.
        let parsed = digest.parse::<Digest>();
        if let Ok(parsed) = parsed
            && let Ok(found) = known.find(&digest)
            && (found.target == parsed || found.image.as_ref().is_some_and(|image| image.config == parsed))
            && let Some(target) = image(graph, &found)
        {
            return Ok(Some(target));
        }
        Ok(Some(self.node(graph, index)))
    }

    /// All digests that begin like this, each with its index, if it has a row, and a rank: what has the same digest and a
    /// higher one is not meant.
    fn beginning_with(
        &self,
        graph: &Graph,
        text: &str,
        digits: &str,
    ) -> Result<BTreeMap<String, (u8, Option<usize>)>> {
        let mut found: BTreeMap<String, (u8, Option<usize>)> = BTreeMap::new();
        let mut add = |digest: &str, rank: u8, node: Option<usize>| {
            if !text.contains(':') || digest.starts_with(text) {
                let best = found.entry(digest.to_owned()).or_insert((rank, node));
                if rank < best.0 {
                    *best = (rank, node);
                }
            }
        };
        // Of all that a store has only few begin like this: the others are not made a text of.
        let fits = |digest: &Digest| digest.starts_with(digits);
        for (index, node) in graph.nodes.iter().enumerate() {
            match &node.object {
                Object::Blob(digest) if fits(digest) => add(&digest.to_string(), 0, Some(index)),
                Object::Snapshot { key, .. } if hex(key).starts_with(digits) => add(key, 2, Some(index)),
                Object::Blob(_) | Object::Snapshot { .. } | Object::Tree(_) => {}
            }
        }
        let layers = self.store.layer_digests()?;
        for image in &graph.images {
            let Object::Blob(manifest) = &graph.nodes[image.manifest].object else { continue };
            let digests = layers.get(manifest).into_iter().flatten();
            for (digest, layer) in digests.zip(&image.layers) {
                let node = layer.tree.or(layer.blob);
                if node.is_some() && fits(digest.diff_id.digest()) {
                    add(&digest.diff_id.to_string(), 1, node);
                }
            }
        }
        for partial in self.store.partials()?.iter().filter(|partial| fits(&partial.digest)) {
            add(&partial.digest.to_string(), 3, None);
        }
        Ok(found)
    }

    fn node(&self, graph: &Graph, index: usize) -> Target {
        let container = match &graph.nodes[index].object {
            Object::Snapshot { owner, key } if owner == LOCAL => self.container_row(key).ok(),
            _ => None,
        };
        if let Some(row) = container {
            return Target {
                kind: "container".to_owned(),
                name: row.name,
                node: Some(index),
                ..Target::default()
            };
        }
        let kind = Words::new(graph).kind(index).to_owned();
        Target { kind, name: super::chain::name(graph, index), node: Some(index), ..Target::default() }
    }

    fn container_target(&self, graph: &Graph, text: &str) -> Result<Target> {
        let row = self.container_row(text)?;
        let node = graph.find(&Object::Snapshot { owner: LOCAL.to_owned(), key: row.id.clone() });
        let node = node.ok_or_else(|| Error::NoContainer { name: text.to_owned() })?;
        let written = graph.children(node).find(|child| graph.nodes[*child].kind == NodeKind::Written);
        let size = match written.map(|child| &graph.nodes[child].object) {
            Some(Object::Tree(id)) => self.store.measure(&self.store.layout().tree(id)).ok(),
            _ => None,
        };
        Ok(Target {
            kind: "container".to_owned(),
            name: row.name,
            node: Some(node),
            size,
            created_at: Some(row.created_at),
            ..Target::default()
        })
    }

    /// The path below the root, if it is one; others of the same look are names of images.
    fn path_below(&self, known: &Known<'_>, given: &Path, text: &str) -> Result<Option<PathBuf>> {
        if given.is_absolute() {
            let nothing = || Error::NothingCalled { text: text.to_owned() };
            return self.below_root(given).map(Some).ok_or_else(nothing);
        }
        let climbs = has_parents(given);
        if !climbs {
            let below: PathBuf =
                given.components().filter(|part| !matches!(part, Component::CurDir)).collect();
            if let Some(first) = below.components().next() {
                // A name of an image can have the look of a path, but not of one that is there.
                let is_file = text.contains('/') || known.find(text).is_err();
                let there = std::fs::symlink_metadata(self.store.layout().root().join(first)).is_ok();
                if there && is_file {
                    return Ok(Some(below));
                }
            }
        }
        if !climbs && !text.contains('/') && text != "." {
            return Ok(None);
        }
        let found = std::path::absolute(given).ok().and_then(|absolute| self.below_root(&absolute));
        let found = found.filter(|below| self.lies_there(below));
        if climbs && found.is_none() {
            return Err(Error::NothingCalled { text: text.to_owned() });
        }
        Ok(found)
    }

    /// The rest of an absolute path behind the root, however the root is reached. What is named itself is never followed,
    /// and no link below the root is, unless `..` comes after it.
    fn below_root(&self, given: &Path) -> Option<PathBuf> {
        let root = self.store.layout().root().canonicalize().ok()?;
        if !has_parents(given) {
            let mut ancestors: Vec<&Path> = given.ancestors().collect();
            ancestors.reverse();
            let reached =
                ancestors.into_iter().find(|path| path.canonicalize().is_ok_and(|real| real == root));
            return given.strip_prefix(reached?).ok().map(|below| below.components().collect());
        }
        let real = match given.file_name() {
            Some(name) => given.parent()?.canonicalize().ok()?.join(name),
            None => given.canonicalize().ok()?,
        };
        real.strip_prefix(&root).ok().map(Path::to_owned)
    }

    fn at_path(&self, graph: &Graph, path: &Path, text: &str) -> Result<Target> {
        let nothing = || Error::NothingCalled { text: text.to_owned() };
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap_or("\u{fffd}")).collect();
        match parts[..] {
            ["blobs", algorithm, hex] => {
                let digest = format!("{algorithm}:{hex}").parse::<Digest>().ok();
                if let Some(index) = digest.and_then(|digest| graph.find(&Object::Blob(digest))) {
                    return Ok(self.node(graph, index));
                }
            }
            ["overlay2", id, ..] => {
                if let Some(index) = id.parse().ok().and_then(|id| graph.find(&Object::Tree(id))) {
                    return self.in_tree(graph, index, path).map_err(|()| nothing());
                }
            }
            ["partial", name] => {
                let digest = name.replacen('-', ":", 1);
                if digest.parse::<Digest>().is_ok()
                    && let Ok(found) = self.partial(&digest)
                {
                    return Ok(found);
                }
            }
            _ => {}
        }
        if !self.lies_there(path) {
            return Err(nothing());
        }
        self.without_meaning(path)
    }

    /// A tree, or a file in it.
    fn in_tree(&self, graph: &Graph, index: usize, path: &Path) -> Result<Target, ()> {
        let mut target = self.node(graph, index);
        let below: PathBuf = path.iter().skip(2).collect();
        if below.as_os_str().is_empty() {
            return Ok(target);
        }
        let file = self.look_at(path).ok_or(())?;
        let stat = fstat(&file).map_err(|_| ())?;
        let bytes = |number: i64| u64::try_from(number).unwrap_or(0);
        target.size = (FileType::from_raw_mode(stat.st_mode) != FileType::Directory).then(|| Size {
            apparent: bytes(stat.st_size),
            allocated: bytes(stat.st_blocks).saturating_mul(512),
            inodes: 1,
        });
        target.file = Some(below.strip_prefix("diff").map(Path::to_owned).unwrap_or(below));
        Ok(target)
    }

    fn partial(&self, digest: &str) -> Result<Target> {
        let partials = self.store.partials()?;
        let partial = partials.into_iter().find(|partial| partial.digest.to_string() == digest);
        let partial = partial.ok_or_else(|| Error::NothingCalled { text: digest.to_owned() })?;
        let size = self.store.measure(&self.store.layout().partial_blob(&partial.digest))?;
        let until = partial.modified.saturating_add(KEEP_SECONDS);
        // One whose blob has come another way is of no use, and none is if no pull was interrupted.
        let useless = self.store.blob(&partial.digest)?.is_some()
            || until <= self.store.clock().now()
            || !self.store.has_lasting_lease()?;
        Ok(Target {
            kind: "partial download".to_owned(),
            name: digest.to_owned(),
            size: Some(size),
            outlook: Some(if useless { Outlook::Garbage } else { Outlook::Until(until) }),
            ..Target::default()
        })
    }

    /// What lies below the root and has no row.
    fn without_meaning(&self, path: &Path) -> Result<Target> {
        let scan = self.store.scan()?;
        let absolute = self.store.layout().root().join(path);
        let name = path.to_string_lossy().into_owned();
        let target = |kind: &str, size, outlook| Target {
            kind: kind.to_owned(),
            name: name.clone(),
            size,
            outlook: Some(outlook),
            ..Target::default()
        };
        let measured = || self.store.measure(&absolute).ok();
        let mut parts = path.iter();
        let first = parts.next().and_then(|part| part.to_str()).unwrap_or_default();
        if let Some(unknown) = scan.unknown.iter().find(|unknown| absolute.starts_with(&unknown.path)) {
            let judged = self.store.judge_unknown(std::slice::from_ref(unknown), false)?;
            let outlook = match judged.into_iter().next().map(|discard| discard.fate) {
                Some(DiscardFate::Used(by)) => Outlook::Used(by),
                Some(DiscardFate::Elsewhere) => Outlook::Used("it is on another filesystem".to_owned()),
                Some(DiscardFate::Resumable) => {
                    Outlook::Used("an interrupted pull goes on with it".to_owned())
                }
                Some(DiscardFate::Explained) => Outlook::Own,
                Some(DiscardFate::Trashed(_)) | None => Outlook::Garbage,
            };
            return Ok(target("unknown", measured(), outlook));
        }
        match (first, parts.next()) {
            ("trash", Some(_)) => Ok(target("trash", measured(), Outlook::Garbage)),
            ("ingest", Some(session)) => {
                Ok(target("unfinished work of a command", measured(), ingest(&scan, session)))
            }
            _ => Ok(target("the store's own", measured(), Outlook::Own)),
        }
    }

    fn lies_there(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.look_at(path).is_some()
    }

    /// Opens something below the root to look at it; what images have written leads nowhere else.
    fn look_at(&self, path: &Path) -> Option<std::os::fd::OwnedFd> {
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root =
            openat(CWD, self.store.layout().root(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // A link at the end is what is looked at; one on the way is not followed.
        let (parent, name) = (path.parent()?, path.file_name()?);
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent =
            openat2(&root, parent, flags, Mode::empty(), resolve | ResolveFlags::NO_SYMLINKS).ok()?;
        openat2(&parent, name, look, Mode::empty(), resolve).ok()
    }
}

/// What stands behind the name of the algorithm.
fn hex(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

fn has_parents(path: &Path) -> bool {
    path.components().any(|component| matches!(component, Component::ParentDir))
}

fn image(graph: &Graph, found: &Found) -> Option<Target> {
    let node = graph.find(&Object::Blob(found.target.clone()))?;
    let names: Vec<String> = found.names.iter().map(|name| familiar(name)).collect();
    let below = layerstore_gc::reach(graph, [node]);
    let objects = graph.nodes.iter().zip(below).filter(|(_, below)| *below);
    let size = objects.map(|(node, _)| node.size).sum();
    let kind = if found.image.is_some() { "image" } else { "artifact" };
    Some(Target {
        kind: kind.to_owned(),
        name: names.join(", "),
        node: Some(node),
        size: Some(size),
        ..Target::default()
    })
}

fn ingest(scan: &Scan, session: &std::ffi::OsStr) -> Outlook {
    let alive = scan.ingests.iter().any(|ingest| ingest.name == session && ingest.alive);
    if alive { Outlook::Running } else { Outlook::Garbage }
}
