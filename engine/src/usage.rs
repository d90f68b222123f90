//! Where the disk went.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use layerstore_gc::{GroupAccount, Policy, Scope, Tally, User};
use layerstore_oci::Digest;
use layerstore_store::{
    Graph, LOCAL, LayerDigest, Missing, NodeKind, Object, Scan, Size, Space, Store, Subject, TreeId,
};

use crate::Layerstore;
use crate::error::Result;

/// The layers of images, by manifest.
pub type LayerDigests = HashMap<Digest, Vec<LayerDigest>>;

/// What a store takes, by what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// All images that names lead to.
    pub images: Part,
    /// All containers.
    pub containers: Part,
    /// Where the bytes are. Without a scan those parts are left out that have no rows.
    pub parts: Vec<(PartKind, Part)>,
    /// What all parts take together, which is what `du -x` says of the root; `None` without a scan.
    pub total: Option<Size>,
    /// What nothing explains.
    pub unknown: Vec<(PathBuf, Size)>,
    /// Blobs and trees that should be there and are not.
    pub missing: Vec<String>,
    /// The filesystem that the store is on.
    pub space: Space,
}

/// Some things and what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// How many there are.
    pub count: u64,
    /// How many of them are in use.
    pub active: u64,
    /// What they take.
    pub size: Size,
    /// Bytes of blocks that can be had back: those of unused images by `image prune --all`, those of containers that are
    /// not in use by removing them, all others by a collection without any policy.
    pub reclaimable: u64,
}

/// A part of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// Complete blobs.
    Blobs,
    /// Unpacked layers.
    Trees,
    /// What containers and other snapshots have written.
    Writable,
    /// Trees that one stack of layers needs on top.
    Fixups,
    /// What running commands have not completed, and interrupted downloads.
    Ingests,
    /// What was forgotten and is not deleted yet.
    Trash,
    /// The database, locks, the reserve, and the directories of every store.
    Database,
    /// What nothing explains.
    Unknown,
}

/// One image with all its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// Names as they are stored; the target's digest for an image without one.
    pub names: Vec<String>,
    /// The manifest or index that they stand for.
    pub target: Digest,
    /// The images that they lead to, one for each platform.
    pub variants: Vec<VariantUsage>,
    /// What removing it would free.
    pub freed: Size,
    /// When it was last used, or got its name, in seconds since 1970.
    pub last_use: i64,
    /// When it was last mounted, pulled, or something was made from it.
    pub last_used_at: Option<i64>,
    /// When it was last pulled.
    pub pulled_at: Option<i64>,
    /// Whether one of its names is pinned.
    pub pinned: bool,
}

/// One image of one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantUsage {
    /// Its ID.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Digest,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// When it was built, if its config says.
    pub created: Option<i64>,
    /// Bytes of its layers, as `images` shows them.
    pub size: u64,
    /// Bytes of those that other images have as well.
    pub shared: u64,
    /// Its containers.
    pub containers: Vec<String>,
    /// Where it is mounted.
    pub mounts: Vec<PathBuf>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerUsage>,
}

impl VariantUsage {
    /// Bytes of the layers that no other image has.
    pub fn unique(&self) -> u64 {
        self.size - self.shared
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUsage {
    /// Its blob and what that takes, if it is here.
    pub blob: Option<(Digest, Size)>,
    /// Its tree's directory and what that takes, if it is unpacked.
    pub tree: Option<(String, Size)>,
}

/// What a container has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// When it was created, in seconds since 1970.
    pub created_at: i64,
    /// Where the store has mounted it.
    pub mounted: Option<PathBuf>,
    /// Who has its files mounted, whoever mounted them, in words as in [`Layerstore::containers_in_use`].
    pub in_use: Option<String>,
    /// What it takes.
    pub size: Size,
}

/// A store's usage, and that of each image and container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetailedUsage {
    /// All in all.
    pub usage: DiskUsage,
    /// Each image.
    pub images: Vec<ImageUsage>,
    /// Each container.
    pub containers: Vec<ContainerUsage>,
}

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
        Ok(self.usage(scan, false)?.usage)
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
        self.usage(scan, true)
    }

    fn usage(&self, scan: bool, details: bool) -> Result<DetailedUsage> {
        let account = |store: &Store| -> Result<_> {
            let graph = store.graph_to_collect(false)?;
            let written: Vec<TreeId> =
                graph.uncounted.iter().filter_map(|index| tree_id(&graph, *index)).collect();
            let sizes = store.measure_trees(&written)?;
            let written: HashMap<TreeId, Size> = written.into_iter().zip(sizes).collect();
            let account = layerstore_gc::account(&graph);
            Ok((graph, account, written))
        };
        let (found, (graph, account, written)) = if scan {
            let (scan, accounts) = self.beside_scan(account)?;
            (Some(scan), accounts)
        } else {
            (None, account(&self.store)?)
        };
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
        let mut in_use = self.containers_in_use()?;
        let rows = self.store.containers()?;
        let usages = rows.into_iter().map(|row| {
            let subject = Subject::Snapshot { owner: LOCAL.to_owned(), key: row.id.clone() };
            let mounted = mounts.iter().find(|mount| mount.subject == subject);
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

/// The parts that have rows.
fn recorded(
    graph: &Graph,
    account: &layerstore_gc::Account,
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
