//! What removing an image frees, and what stays because of whom.

use std::collections::BTreeMap;

use layerstore_gc::{Group, describe, familiar};
use layerstore_store::{LOCAL, Object, RootKind, Size};

use super::chain::{Words, name};
use super::known::Known;
use crate::Layerstore;
use crate::error::{Error, Result};

/// What removing an image does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreedBy {
    /// Names that go.
    pub names: Vec<String>,
    /// What goes with them.
    pub objects: Vec<FreedObject>,
    /// What stays, those first that take the most.
    pub stays: Vec<Staying>,
}

/// Something that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreedObject {
    /// What it is.
    pub kind: String,
    /// Its digest, ID or key.
    pub name: String,
    /// What it takes.
    pub size: Size,
}

/// What the same roots keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staying {
    /// The roots, in words.
    pub keepers: Vec<String>,
    /// How many blobs and trees that are.
    pub count: usize,
    /// What they take.
    pub size: Size,
}

impl FreedBy {
    /// What is freed altogether.
    pub fn freed(&self) -> Size {
        self.objects.iter().map(|object| object.size).sum()
    }
}

impl Layerstore {
    /// What [`Layerstore::remove`] of an image would free, and what would stay because of whom. A name stands for itself,
    /// an ID for all names of the image.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `InvalidInput` if several IDs begin like this.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> layerstore::Result<()> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// println!("{} bytes", store.freed_by("app:1")?.freed().allocated);
    /// # Ok(())
    /// # }
    /// ```
    pub fn freed_by(&self, image: &str) -> Result<FreedBy> {
        let graph = self.store.graph_to_collect(false)?;
        let known = Known::new(&graph);
        let found = known.find(image)?;
        let target = graph.find(&Object::Blob(found.target.clone()));
        let group = known.groups.into_iter().find(|group| Some(group.target) == target);
        let group = group.ok_or_else(|| Error::NoImage { name: image.to_owned() })?;
        let goes = |root: &usize| match &graph.roots[*root].kind {
            RootKind::Name(name) => {
                name.owner == LOCAL && found.by_name.as_ref().is_none_or(|wanted| *wanted == name.name)
            }
            _ => false,
        };
        let group = Group { names: group.names.iter().copied().filter(goes).collect(), ..group };
        let freed = layerstore_gc::freed_by(&graph, &group);
        let words = Words::new(&graph);
        let objects = freed.freed.iter().map(|index| FreedObject {
            kind: words.kind(*index).to_owned(),
            name: name(&graph, *index),
            size: graph.nodes[*index].size,
        });
        let mut stays: BTreeMap<&[usize], Staying> = BTreeMap::new();
        for (index, roots) in &freed.stays {
            let node = &graph.nodes[*index];
            let entry = stays.entry(roots).or_insert_with(|| Staying {
                keepers: roots.iter().map(|root| describe(&graph.roots[*root].kind)).collect(),
                count: 0,
                size: Size::default(),
            });
            if !matches!(node.object, Object::Snapshot { .. }) {
                entry.count += 1;
            }
            entry.size += node.size;
        }
        let mut stays: Vec<Staying> = stays.into_values().filter(|staying| staying.count > 0).collect();
        stays.sort_by_key(|staying| std::cmp::Reverse(staying.size.allocated));
        let names = group.names(&graph).map(|(_, name)| familiar(&name.name));
        Ok(FreedBy { names: names.collect(), objects: objects.collect(), stays })
    }
}
