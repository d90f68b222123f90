//! Where the disk went.

mod figures;

use std::collections::{HashMap, HashSet};

use layerstore_gc::{Account, GroupAccount, Policy, Scope, Tally, User};
use layerstore_oci::Digest;
use layerstore_store::{
    Graph, LOCAL, Missing, MountRow, NodeKind, Object, Scan, Size, Store, Subject, TreeId,
};

use crate::Layerstore;
use crate::collect::{Collected, foreseen};
use crate::error::Result;

pub use figures::{
    ContainerUsage, DetailedUsage, DiskUsage, ImageUsage, LayerDigests, LayerUsage, Part, PartKind,
    VariantUsage,
};

impl Layerstore {
    /// Says where the disk went, all in all. With `scan` it is looked for what no row explains; without, this takes
    /// milliseconds however many files there are.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::detailed_usage`].
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> layerstore::Result<()> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// println!("{} bytes can be freed", store.disk_usage(false)?.images.reclaimable);
    /// # Ok(())
    /// # }
    /// ```
    pub fn disk_usage(&self, scan: bool) -> Result<DiskUsage> {
        Ok(self.tell(self.take(scan)?, false)?.usage)
    }

    /// The same, with each image and container.
    ///
    /// # Errors
    ///
    /// Those of the store itself; `Corrupt` if the database refers to something that it does not hold.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> layerstore::Result<()> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// for image in store.detailed_usage(false)?.images {
    ///     println!("{:?}: {} bytes", image.names, image.freed.allocated);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn detailed_usage(&self, scan: bool) -> Result<DetailedUsage> {
        self.tell(self.take(scan)?, true)
    }

    /// The same as of the moment at which it is also worked out what these policies would take away: see
    /// [`Layerstore::plan_collection`]. What interrupted pulls have fetched stays with all of them.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::detailed_usage`].
    pub fn usage_and_plans(&self, policies: &[Policy]) -> Result<(DetailedUsage, Vec<Collected>)> {
        let mut taken = self.take(true)?;
        if policies.iter().any(|policy| policy.evict.is_some()) {
            self.store.note_missing(&mut taken.graph);
        }
        let anyway = match &taken.scan {
            Some(scan) => self.goes_anyway(scan, false)?,
            None => Vec::new(),
        };
        let plans = policies.iter().map(|policy| foreseen(&taken.graph, policy, &anyway, &HashSet::new()));
        let plans = plans.collect();
        Ok((self.tell(taken, true)?, plans))
    }

    /// What each container takes.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::detailed_usage`].
    pub fn container_sizes(&self) -> Result<Vec<ContainerUsage>> {
        let graph = self.store.graph_to_collect(false)?;
        let written = written(&self.store, &graph)?;
        self.container_usages(&graph, &written)
    }

    /// Reads all that an account is made of, rows and files at the same time.
    fn take(&self, scan: bool) -> Result<Taken> {
        let rows = |store: &Store| -> Result<_> {
            let graph = store.graph_to_collect(false)?;
            let written = written(store, &graph)?;
            let account = layerstore_gc::account(&graph);
            Ok((graph, account, written))
        };
        let (scan, (graph, account, written)) = if scan {
            let (scan, rows) = self.beside_scan(rows)?;
            (Some(scan), rows)
        } else {
            (None, rows(&self.store)?)
        };
        Ok(Taken { graph, account, written, scan })
    }

    fn tell(&self, taken: Taken, details: bool) -> Result<DetailedUsage> {
        let Taken { graph, account, written, scan: found } = taken;
        let containers = self.container_usages(&graph, &written)?;
        let prune = Policy { scope: Scope::Unused, ..Policy::default() };
        let pruned = layerstore_gc::freed_by_policy(&graph, &prune).allocated;
        let missing = found.as_ref().map(|scan| scan.missing.clone()).unwrap_or_default();
        let mut parts = recorded(&graph, &account, &written, &missing);
        let mut unknown = Vec::new();
        let mut total = None;
        if let Some(scan) = found {
            parts.extend(unrecorded(&scan));
            total = Some(parts.iter().map(|(_, part)| part.size).sum());
            unknown = scan.unknown.into_iter().map(|unknown| (unknown.path, unknown.size)).collect();
        }
        let (active, idle): (Vec<&ContainerUsage>, Vec<&ContainerUsage>) = containers
            .iter()
            .partition(|container| container.mounted.is_some() || container.in_use.is_some());
        let usage = DiskUsage {
            images: Part {
                count: account.image_ids as u64,
                active: account.active_ids as u64,
                size: account.named,
                reclaimable: pruned,
            },
            containers: Part {
                count: containers.len() as u64,
                active: active.len() as u64,
                size: containers.iter().map(|container| container.size).sum(),
                reclaimable: idle.iter().map(|container| container.size.allocated).sum(),
            },
            parts,
            total,
            unknown,
            missing: missing.iter().map(name_of).collect(),
            space: self.store.space()?,
        };
        let groups = if details { &account.groups[..] } else { &[] };
        let images = groups.iter().map(|group| image_usage(&graph, &account.images, group)).collect();
        Ok(DetailedUsage { usage, images, containers })
    }

    /// The sizes of all images as of one moment: what they share, and who uses them.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::disk_usage`].
    pub fn image_usage(&self) -> Result<Vec<ImageUsage>> {
        let graph = self.store.graph()?;
        let account = layerstore_gc::account(&graph);
        Ok(account.groups.iter().map(|group| image_usage(&graph, &account.images, group)).collect())
    }

    /// How the layers of all images are named, lowest first, by manifest.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    pub fn layer_digests(&self) -> Result<LayerDigests> {
        Ok(self.store.layer_digests()?)
    }

    fn container_usages(
        &self,
        graph: &Graph,
        written: &HashMap<TreeId, Size>,
    ) -> Result<Vec<ContainerUsage>> {
        let mounts = self.store.live_mounts()?;
        let rows = self.store.containers()?;
        let mut in_use = self.containers_in_use()?;
        let mounted: HashMap<&str, &MountRow> = mounts
            .iter()
            .rev()
            .filter_map(|mount| match &mount.subject {
                Subject::Snapshot { owner, key } if owner == LOCAL => Some((key.as_str(), mount)),
                _ => None,
            })
            .collect();
        let usages = rows.into_iter().map(|row| {
            let mounted = mounted.get(row.id.as_str());
            let node = graph.find(&Object::Snapshot { owner: LOCAL.to_owned(), key: row.id.clone() });
            // Its own tree is the one that is written to.
            let own = node.into_iter().flat_map(|node| graph.children(node));
            let size = own.filter_map(|child| match &graph.nodes[child].object {
                Object::Tree(id) => written.get(id).copied(),
                _ => None,
            });
            ContainerUsage {
                size: size.sum(),
                mounted: mounted.map(|mount| mount.target.clone()),
                in_use: in_use.remove(&row.id),
                id: row.id,
                name: row.name,
                image: row.image,
                created_at: row.created_at,
            }
        });
        Ok(usages.collect())
    }
}

/// A store at one moment.
struct Taken {
    graph: Graph,
    account: Account,
    written: HashMap<TreeId, Size>,
    /// What lies below the root, if that was looked at.
    scan: Option<Scan>,
}

/// What the trees take that somebody may write to: no row says it.
fn written(store: &Store, graph: &Graph) -> Result<HashMap<TreeId, Size>> {
    let trees: Vec<TreeId> = graph.uncounted.iter().filter_map(|index| tree_id(graph, *index)).collect();
    let sizes = store.measure_trees(&trees)?;
    Ok(trees.into_iter().zip(sizes).collect())
}

/// The parts that have rows.
fn recorded(
    graph: &Graph,
    account: &Account,
    written: &HashMap<TreeId, Size>,
    missing: &[Missing],
) -> Vec<(PartKind, Part)> {
    let lost: HashSet<usize> = missing.iter().filter_map(|row| graph.find(&object(row))).collect();
    let kinds = [
        (NodeKind::Blob, PartKind::Blobs),
        (NodeKind::Layer, PartKind::Trees),
        (NodeKind::Written, PartKind::Writable),
        (NodeKind::Fixup, PartKind::Fixups),
    ];
    kinds
        .into_iter()
        .map(|(kind, part)| {
            let (all, garbage) = account.kind(kind);
            let gone: Size = lost
                .iter()
                .map(|index| &graph.nodes[*index])
                .filter(|node| node.kind == kind)
                .map(|node| node.size)
                .sum();
            let mut size = all.size - gone;
            if part == PartKind::Writable {
                // What is counted now has no figure in its row.
                size += written.values().sum();
            }
            let Tally { count, .. } = all;
            let reclaimable = garbage.size.allocated;
            (part, Part { count, active: count - garbage.count, size, reclaimable })
        })
        .collect()
}

/// The parts that have none.
fn unrecorded(scan: &Scan) -> [(PartKind, Part); 4] {
    let dead = scan.ingests.iter().filter(|ingest| !ingest.alive);
    let ingests =
        scan.ingests.iter().map(|ingest| ingest.size).chain(scan.partials.iter().map(|(_, size)| *size));
    let unknown: Size = scan.unknown.iter().map(|unknown| unknown.size).sum();
    let count = scan.ingests.len() + scan.partials.len();
    [
        (
            PartKind::Ingests,
            Part {
                count: count as u64,
                active: scan.ingests.iter().filter(|ingest| ingest.alive).count() as u64,
                size: ingests.sum(),
                reclaimable: dead.map(|ingest| ingest.size.allocated).sum(),
            },
        ),
        (PartKind::Trash, Part { count: 0, active: 0, size: scan.trash, reclaimable: scan.trash.allocated }),
        (PartKind::Database, Part { count: 1, active: 1, size: scan.database, reclaimable: 0 }),
        (
            PartKind::Unknown,
            Part {
                count: scan.unknown.len() as u64,
                active: 0,
                size: unknown,
                reclaimable: unknown.allocated,
            },
        ),
    ]
}

fn image_usage(graph: &Graph, images: &[layerstore_gc::ImageAccount], account: &GroupAccount) -> ImageUsage {
    let group = &account.group;
    let names = || group.names(graph).map(|(_, name)| name);
    let variants = group.images.iter().map(|index| {
        let (facts, account) = (&graph.images[*index], &images[*index]);
        let containers = account.users.iter().filter_map(|user| match user {
            User::Container(name) => Some(name.clone()),
            _ => None,
        });
        let mounts = account.users.iter().filter_map(|user| match user {
            User::Mount(target) => Some(target.clone()),
            _ => None,
        });
        VariantUsage {
            id: facts.config.clone(),
            manifest: digest(graph, facts.manifest),
            platform: facts.platform.clone(),
            created: facts.created,
            size: account.size,
            shared: account.shared,
            containers: containers.collect(),
            mounts: mounts.collect(),
            layers: facts
                .layers
                .iter()
                .map(|layer| LayerUsage {
                    blob: layer.blob.map(|blob| (digest(graph, blob), graph.nodes[blob].size)),
                    tree: layer.tree.and_then(|tree| match &graph.nodes[tree].object {
                        Object::Tree(id) => Some((id.to_string(), graph.nodes[tree].size)),
                        _ => None,
                    }),
                })
                .collect(),
        }
    });
    ImageUsage {
        names: names().map(|name| name.name.clone()).collect(),
        target: digest(graph, group.target),
        variants: variants.collect(),
        freed: account.freed,
        last_use: account.last_use,
        last_used_at: group.images.iter().filter_map(|image| graph.images[*image].last_used_at).max(),
        pulled_at: names().filter_map(|name| name.pulled_at).max(),
        pinned: names().any(|name| name.pinned),
    }
}

fn tree_id(graph: &Graph, index: usize) -> Option<TreeId> {
    match &graph.nodes[index].object {
        Object::Tree(id) => Some(id.clone()),
        _ => None,
    }
}

fn digest(graph: &Graph, index: usize) -> Digest {
    match &graph.nodes[index].object {
        Object::Blob(digest) => digest.clone(),
        // Only blobs are asked about.
        Object::Tree(_) | Object::Snapshot { .. } => Digest::sha256_of(b""),
    }
}

fn object(missing: &Missing) -> Object {
    match missing {
        Missing::Blob(digest) => Object::Blob(digest.clone()),
        Missing::Tree(id) => Object::Tree(id.clone()),
    }
}

fn name_of(missing: &Missing) -> String {
    match missing {
        Missing::Blob(digest) => format!("blob {digest}"),
        Missing::Tree(id) => format!("tree {id}"),
    }
}
