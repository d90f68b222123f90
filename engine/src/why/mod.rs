//! Why something is in the store: what keeps it, and what would take it away.

mod chain;
mod freed;
mod known;
mod outlook;
mod resolve;

use std::ffi::OsStr;
use std::path::PathBuf;

use layerstore_gc::{Above, Goal, Policy, Stays};
use layerstore_store::Size;

use crate::Layerstore;
use crate::collect::bytes;
use crate::error::Result;

use known::Known;

pub use chain::{Chain, Keeper, Step};
pub use freed::{FreedBy, FreedObject, Staying};

/// Ways that are looked for; nobody reads more.
const LIMIT: usize = 1000;

/// What is known of something in a store, and what keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What it is: `image`, `container`, `layer blob`, `tree of a layer`, `partial download` and so on.
    pub kind: String,
    /// Its name, digest, ID, key, or path below the root.
    pub name: String,
    /// The media type under which it came.
    pub media_type: Option<String>,
    /// What it takes, if that is counted.
    pub size: Option<Size>,
    /// When it was stored, in seconds since 1970.
    pub created_at: Option<i64>,
    /// The file in the tree that was asked for.
    pub file: Option<PathBuf>,
    /// The ways from roots to it, short ones first.
    pub chains: Vec<Chain>,
    /// Whether there are more ways than that.
    pub more: bool,
    /// What becomes of it.
    pub outlook: Outlook,
}

/// What becomes of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing keeps it: the next collection deletes it.
    Garbage,
    /// The beginning of a blob: a collection deletes it from this moment on.
    Until(i64),
    /// A running command has it.
    Running,
    /// It is unknown, and yet it stays for this reason.
    Used(String),
    /// It is part of every store.
    Own,
    /// Roots lead to it.
    Kept(Eviction),
}

/// Which policies take something that roots lead to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Eviction {
    /// A collection of the images without a name takes it.
    pub dangling: bool,
    /// A collection of all unused images takes it.
    pub unused: bool,
    /// When one of the images that lead to it was last used, in seconds since 1970.
    pub last_use: Option<i64>,
    /// Images that such a collection leaves, and why.
    pub stays: Vec<(Vec<String>, Vec<Stays>)>,
    /// What the policy that was asked about does.
    pub policy: Option<Verdict>,
}

/// What a policy does to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes it.
    Now,
    /// It takes it from this moment on, unless it is used before.
    At(i64),
    /// It leaves it, and takes so many blobs and trees of what it leads to, which take so much.
    Part {
        /// How many blobs.
        blobs: usize,
        /// How many trees.
        trees: usize,
        /// What they take.
        size: Size,
    },
    /// It leaves it, for these reasons.
    Never(Vec<(Vec<String>, Vec<Stays>)>),
}

impl Layerstore {
    /// Says what something is, what keeps it, and what would take it away. `text` is a digest, diff ID or chain ID, the
    /// first four or more digits of one, the name or ID of an image or a container, the ID of a tree, the key of a snapshot,
    /// or a path to something below the root, from there or from the working directory. With a policy it is also said whether and when that takes it.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is nothing of this name; `InvalidInput` if several begin like this.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> layerstore::Result<()> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// for chain in store.why("overlay2/k3v9x0ab", None)?.chains {
    ///     println!("{chain}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn why(&self, text: impl AsRef<OsStr>, policy: Option<&Policy>) -> Result<Why> {
        let mut graph = self.store.graph_to_collect(false)?;
        if policy.is_some_and(|policy| policy.evict.is_some()) {
            self.store.note_missing(&mut graph);
        }
        let known = Known::new(&graph);
        let found = self.resolve(&known, text.as_ref())?;
        let Some(node) = found.node else { return found.without_row() };
        let above = Above::new(&graph);
        let ways = above.ways(node, LIMIT);
        let object = &graph.nodes[node];
        let made = self.store.made(&object.object)?;
        let (created_at, media_type) = made.map_or((None, None), |(at, media_type)| (Some(at), media_type));
        // The size of a tree is not that of a directory in it.
        let counted = found.file.is_none() && object.size != Size::default();
        // What goes anyway counts for such a goal alone, and to find it takes a while.
        let anyway = match policy {
            Some(policy) if matches!(policy.goal, Some(Goal::Free(_))) => {
                let (scan, ()) = self.beside_scan(|_| Ok(()))?;
                bytes(&self.goes_anyway(&scan, policy.interrupted)?)
            }
            _ => 0,
        };
        let policy = policy.map(|policy| (policy, anyway));
        let outlook = outlook::of(&known, &above, node, policy, self.store.clock().now());
        Ok(Why {
            kind: found.kind,
            name: found.name,
            media_type,
            size: found.size.or_else(|| counted.then_some(object.size)),
            created_at: found.created_at.or(created_at),
            file: found.file,
            chains: chain::chains(&graph, &ways),
            more: ways.more,
            outlook,
        })
    }
}
