//! Mounting and unmounting, and making sure that the trees are there.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use layerstore_oci::{DiffId, Digest, ErrorKind};
use layerstore_store::{
    IdMap, ImageCommit, ImageInfo, Key, LOCAL, LayerRow, MountOptions, MountPoint, MountRow, NewImage,
    Session, Settings, Stack, Subject, TreeId,
};

use layerstore_unpack::OverlayXattr;
use rustix::io::Errno;

use crate::Layerstore;
use crate::containers::subject;
use crate::error::{Error, Result};
use crate::event::{LayerName, Listener};
use crate::layers::{self, Claims, Layer, Work};
use crate::names::Found;

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub target: PathBuf,
    /// What.
    pub what: MountedWhat,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountedWhat {
    /// An image, by its ID; `None` if its name was removed meanwhile.
    Image(Option<layerstore_oci::Digest>),
    /// A snapshot. A container's is that of the owner `local` with the container's ID as key.
    Snapshot {
        /// Who created it.
        owner: String,
        /// Its key.
        key: String,
    },
}

impl Layerstore {
    /// Mounts an image read-only, at `directory` or at a directory of the store's own, and returns where.
    ///
    /// Layers that are not unpacked, or whose trees did not survive a power cut, are unpacked first. An
    /// image that is mounted at the store's own directory already stays there.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image or directory; `AlreadyExists` for a mount point that is one already;
    /// `Unsupported` without the privilege to mount ([`Error::is_unprivileged`]), and for an artifact that is no
    /// image.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let path = store.mount_image("app:1", None, &|_| {})?;
    /// println!("{}", path.display());
    /// # Ok(())
    /// # }
    /// ```
    pub fn mount_image(
        &self,
        name: &str,
        directory: Option<&Path>,
        listener: &Listener<'_>,
    ) -> Result<PathBuf> {
        self.store.forget_stale_mounts()?;
        self.store.settle()?;
        self.refuse_over_store(directory)?;
        self.with_image(name, |found| {
            let image = unpackable(name, found)?;
            let trees = self.unpacked(image, listener)?;
            let short = image.manifest.short();
            let point = directory.map_or(MountPoint::Own(&short), MountPoint::At);
            let subject = Subject::Image(image.manifest.clone());
            let (stack, options) = (self.read_only(&trees), self.mount_options(&Settings::default())?);
            Ok(self.store.mount(&subject, &trees, point, &stack, &options)?)
        })
    }

    /// The stack of `trees`, topmost first, with nothing to write to.
    pub(crate) fn read_only(&self, trees: &[TreeId]) -> Stack {
        let lowers = trees.iter().map(|id| self.store.layout().diff(id)).collect();
        Stack { lowers, upper: None, plain: false }
    }

    /// How this process mounts what has these settings.
    pub(crate) fn mount_options(&self, settings: &Settings) -> Result<MountOptions> {
        let id_map = if settings.uid_map.is_empty() && settings.gid_map.is_empty() {
            None
        } else {
            Some(IdMap::new(settings.uid_map.clone(), settings.gid_map.clone())?)
        };
        Ok(MountOptions {
            user_xattrs: self.unpack.overlay == OverlayXattr::User,
            volatile: settings.volatile,
            id_map,
            ..MountOptions::default()
        })
    }

    pub(crate) fn refuse_over_store(&self, directory: Option<&Path>) -> Result<()> {
        let root = self.store.layout().root();
        match directory.and_then(|directory| directory.canonicalize().ok()) {
            Some(target) if target.starts_with(root) || root.starts_with(&target) => {
                Err(Error::MountOverStore { target, root: root.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Unmounts `target`: a directory where something is mounted, a container, or an image, which is then unmounted
    /// everywhere in this mount namespace. Returns the directories.
    ///
    /// # Errors
    ///
    /// `NotFound` if nothing of the store is mounted there; `InUse` if programs use it, or if it is in another
    /// mount namespace.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// store.unmount("/mnt".as_ref())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn unmount(&self, target: &OsStr) -> Result<Vec<PathBuf>> {
        let mounts = self.store.live_mounts()?;
        // A directory of another mount namespace need not exist in this one.
        let path = Path::new(target).canonicalize().unwrap_or_else(|_| target.into());
        let at_path: Vec<&MountRow> = mounts.iter().filter(|row| row.target == path).collect();
        let name = target.to_string_lossy();
        let mut rows = if at_path.is_empty() && !name.starts_with(['/', '.']) {
            self.mounts_of(&name, &mounts)?
        } else {
            at_path
        };
        // If there are only mounts elsewhere, unmounting fails and tells where.
        if rows.iter().any(|row| self.store.is_here(row)) {
            rows.retain(|row| self.store.is_here(row));
        }
        if rows.is_empty() {
            return Err(Error::NotMounted { name: name.into_owned() });
        }
        for row in &rows {
            self.store.unmount(row)?;
        }
        Ok(rows.into_iter().map(|row| row.target.clone()).collect())
    }

    fn mounts_of<'a>(&self, name: &str, mounts: &'a [MountRow]) -> Result<Vec<&'a MountRow>> {
        let container = match self.container_row(name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            found => found.ok(),
        };
        if let Some(container) = container {
            return Ok(mounts.iter().filter(|row| row.subject == subject(&container.id)).collect());
        }
        // By its ID: the name may lead to another manifest of the image by now.
        let found = self.find(name).map_err(|error| match error {
            Error::NoImage { name } => Error::NoImageOrContainer { name },
            error => error,
        })?;
        let id = found.image.map(|image| image.config);
        Ok(mounts.iter().filter(|row| id.is_some() && row.config == id).collect())
    }

    /// What is mounted.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// for mount in store.mounted()? {
    ///     println!("{}", mount.target.display());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn mounted(&self) -> Result<Vec<Mounted>> {
        let images = self.store.images(LOCAL)?;
        let mounts = self.store.live_mounts()?;
        Ok(mounts
            .into_iter()
            .map(|row| {
                let what = match row.subject {
                    Subject::Image(manifest) => {
                        let mut found = images.iter().filter_map(|row| row.image.as_ref());
                        let id = found.find(|image| image.manifest == manifest);
                        MountedWhat::Image(id.map(|image| image.config.clone()).or(row.config))
                    }
                    Subject::Snapshot { owner, key } => MountedWhat::Snapshot { owner, key },
                };
                Mounted { target: row.target, what }
            })
            .collect())
    }

    /// The image's trees, topmost first, after unpacking what is missing, with a fix-up where one is needed.
    pub(crate) fn unpacked(&self, image: &ImageInfo, listener: &Listener<'_>) -> Result<Vec<TreeId>> {
        self.check_flavour()?;
        let layers = self.store.layers(&image.manifest)?;
        if layers.iter().all(|layer| self.is_usable(layer)) {
            return self.with_fixup(image, &layers);
        }
        self.unpack_missing(&layers, listener, |session| self.commit_chain(session, image, &layers))?;
        let layers = self.store.layers(&image.manifest)?;
        self.with_fixup(image, &layers)
    }

    /// The trees that are stacked, topmost first.
    ///
    /// Of a layer that comes several times only the topmost counts: the kernel refuses to stack a directory twice,
    /// and what a lower copy says is said again above it. Below a layer whose root is opaque nothing counts: the
    /// kernel ignores that mark on the root of a mount.
    pub(crate) fn stack<'a>(
        &self,
        layers: impl DoubleEndedIterator<Item = (&'a DiffId, &'a TreeId)>,
    ) -> Result<Vec<TreeId>> {
        let mut seen: HashSet<&DiffId> = HashSet::new();
        let mut trees = Vec::new();
        for (_, tree) in layers.rev().filter(|(diff_id, _)| seen.insert(diff_id)) {
            trees.push(tree.clone());
            if self.has_opaque_root(tree)? {
                break;
            }
        }
        Ok(trees)
    }

    pub(crate) fn has_opaque_root(&self, tree: &TreeId) -> Result<bool> {
        let path = self.store.layout().diff(tree);
        let mut value = [0_u8; 1];
        match rustix::fs::getxattr(&path, self.unpack.overlay.opaque(), &mut value[..]) {
            Ok(_) => Ok(value == *b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(Error::File { action: "look at", path, source: errno.into() }),
        }
    }

    fn is_usable(&self, layer: &LayerRow) -> bool {
        layer.tree.as_ref().is_some_and(|tree| tree.trusted && self.is_there(&tree.id))
    }

    pub(crate) fn is_there(&self, tree: &TreeId) -> bool {
        // A link would lead elsewhere.
        self.store.layout().diff(tree).symlink_metadata().is_ok_and(|found| found.is_dir())
    }

    /// Unpacks those of `layers` whose trees are not there or may not be used, and then does what `finish` says while
    /// they are sure to stay.
    pub(crate) fn unpack_missing(
        &self,
        layers: &[LayerRow],
        listener: &Listener<'_>,
        finish: impl FnOnce(&Session) -> Result<()>,
    ) -> Result<()> {
        self.store.recover()?;
        let session = self.store.session(LOCAL)?;
        let policy = self.unpack_policy()?;
        let (result, _) = layers::run(self, &session, &policy, listener, |feeder| {
            let mut seen = HashSet::new();
            for (index, row) in layers.iter().enumerate() {
                if !seen.insert(&row.diff_id) {
                    continue;
                }
                let claim = self.claim(&Key::Layer(row.diff_id.clone()))?;
                let wanted = [(row.blob.clone(), Some(row.diff_id.clone()))];
                let presence = self.store.lease_layers(&session, &wanted)?.pop();
                if presence.as_ref().is_some_and(|presence| presence.tree.is_some()) {
                    continue;
                }
                let size = presence.and_then(|presence| presence.blob).map(|blob| blob.size);
                let missing = || layerstore_store::Error::NoBlob { digest: row.blob.clone() };
                let layer = Layer {
                    index,
                    name: LayerName::Digest(row.blob.clone()),
                    digest: Some(row.blob.clone()),
                    size,
                    media_type: None,
                    diff_id: Some(row.diff_id.clone()),
                };
                let size = size.ok_or_else(missing)?;
                feeder.reuse(layer, Work::Unpack, Claims::new(vec![claim]), row.blob.clone(), size)?;
            }
            Ok(())
        });
        result?;
        finish(&session)?;
        drop(session);
        // Trees that were here, but of another life of the filesystem, would be unpacked again in the next: in another
        // mount namespace, say.
        if layers.iter().any(|layer| layer.tree.is_some()) {
            self.store.settle_older_than(0)?;
        }
        Ok(())
    }

    /// Unpacks layers of which the store has the blobs, in the place of trees that cannot be used.
    pub(crate) fn unpack_layers(&self, layers: &[(Digest, DiffId)], listener: &Listener<'_>) -> Result<()> {
        let row = |(blob, diff_id): &(Digest, DiffId)| LayerRow {
            blob: blob.clone(),
            blob_size: None,
            diff_id: diff_id.clone(),
            tree: None,
        };
        let rows: Vec<LayerRow> = layers.iter().map(row).collect();
        self.unpack_missing(&rows, listener, |_| Ok(()))?;
        // They were here, but of another life of the filesystem; see there.
        self.store.settle_older_than(0)?;
        Ok(())
    }

    /// Records the stack of an image whose layers are all unpacked.
    pub(crate) fn commit_chain(
        &self,
        session: &Session,
        image: &ImageInfo,
        layers: &[LayerRow],
    ) -> Result<()> {
        let labels = image.labels.iter();
        let image = NewImage {
            manifest: image.manifest.clone(),
            config: image.config.clone(),
            platform: image.platform.clone(),
            created: image.created,
            labels: labels
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            layers: layers.iter().map(|row| (row.blob.clone(), row.diff_id.clone())).collect(),
        };
        self.store.commit_images(session, &ImageCommit { images: vec![image], ..ImageCommit::default() })?;
        Ok(())
    }
}

pub(crate) fn unpackable<'a>(name: &str, found: &'a Found) -> Result<&'a ImageInfo> {
    found.image.as_ref().ok_or_else(|| Error::NotUnpackable {
        name: name.to_owned(),
        reason: "it is an artifact, not an image with layers".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use layerstore_oci::{Algorithm, Digest};
    use layerstore_store::{NewBlob, Publication};

    use super::*;

    /// As after loading an image from a docker-archive, mounting it, and loading it as an OCI layout.
    #[test]
    fn privileged_an_image_is_unmounted_by_its_id() {
        if !rustix::process::geteuid().is_root() {
            let skipped = std::env::var("LAYERSTORE_TEST_SKIP").unwrap_or_default();
            assert!(skipped.split(',').any(|kind| kind.trim() == "privileged"), "this test needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layerstore = Layerstore::open(dir.path()).unwrap();
        let store = &layerstore.store;
        let session = store.session(LOCAL).unwrap();
        let manifests = ["docker", "oci"].map(|text| {
            let mut ingest = session.ingest(Algorithm::Sha256).unwrap();
            ingest.write(text.as_bytes()).unwrap();
            let received = ingest.finish(None).unwrap();
            let blobs = vec![NewBlob { received, media_type: None, diff_id: None }];
            store.publish(&session, Publication { blobs, ..Publication::default() }).unwrap();
            Digest::sha256_of(text.as_bytes())
        });
        let image = |manifest: &Digest| NewImage {
            manifest: manifest.clone(),
            config: Digest::sha256_of(b"config"),
            platform: "linux/amd64".to_owned(),
            created: None,
            labels: Vec::new(),
            layers: Vec::new(),
        };
        let [docker, oci] = &manifests;
        let images = vec![image(docker), image(oci)];
        let references = vec![("localhost/a:1".to_owned(), oci.clone())];
        let commit = ImageCommit { images, references, ..ImageCommit::default() };
        store.commit_images(&session, &commit).unwrap();
        let (stack, options) = (layerstore.read_only(&[]), MountOptions::default());
        let (image, point) = (Subject::Image(docker.clone()), MountPoint::Own("docker"));
        let target = store.mount(&image, &[], point, &stack, &options).unwrap();
        assert!(matches!(layerstore.remove("localhost/a:1", false), Err(Error::Mounted { .. })));
        assert_eq!(layerstore.unmount(OsStr::new("localhost/a:1")).unwrap(), [target]);
        layerstore.remove("localhost/a:1", false).unwrap();
    }
}
