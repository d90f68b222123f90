//! An image of one layer, from a root filesystem in a tar archive.

use layerstore_oci::{Change, Compression, Platform, Reference, media_type};
use layerstore_store::{Object, Session};

use super::config::{Step, new_config, with_layer};
use super::layer::NewLayer;
use super::source::{Opened, explained, is_image_archive};
use super::{Built, check_name, names, time};
use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::{LayerName, Listener};
use crate::layers::Work;
use crate::load::Source;

/// How to make an image of a root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportOptions {
    /// How containers of the image run.
    pub changes: Vec<Change>,
    /// Where it comes from, for the image's history: `Imported from FILE` if not given.
    pub message: Option<String>,
    /// What its programs run on; this machine's platform if not given.
    pub platform: Option<Platform>,
    /// When it was made, in seconds since 1970; now if not given.
    pub created: Option<i64>,
}

impl Layerstore {
    /// Makes an image of one layer of a root filesystem: a tar archive, plain or compressed with gzip or zstd, whose
    /// bytes become the layer as they are. An image with the name `name` loses it.
    ///
    /// The input is read once, from beginning to end. Success says that the image is in the store, unpacked and
    /// durable.
    ///
    /// # Errors
    /// [`Error::Archive`] for what is no tar archive, or ends before it should; [`Error::ImageArchive`] for an archive
    /// of images, which [`Layerstore::load`] takes; [`Error::Change`] for a change that makes no sense. After an error
    /// the store has nothing that it did not have before.
    ///
    /// # Examples
    /// ```no_run
    /// use layerstore::oci::Change;
    /// use layerstore::{ImportOptions, Layerstore, Source};
    ///
    /// let store = Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let changes = vec![Change::parse("CMD [\"/bin/sh\"]").map_err(layerstore::Error::from)?];
    /// let options = ImportOptions { changes, ..ImportOptions::default() };
    /// let name = "rootfs:1".parse().map_err(layerstore::Error::from)?;
    /// let built = store.import(Source::Path("rootfs.tar".into()), Some(&name), &options, &|_| {})?;
    /// println!("{}", built.id);
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn import(
        &self,
        source: Source,
        name: Option<&Reference>,
        options: &ImportOptions,
        listener: &Listener<'_>,
    ) -> Result<Built> {
        check_name(name)?;
        let created = time(options.created)?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        // What is wrong with the changes shows before anything is read.
        let mut config = new_config(&platform);
        Step { created: &created, created_by: None, author: None, comment: None, changes: &options.changes }
            .apply(&mut config)?;
        let source = Opened::new(source)?;
        self.check_flavour()?;
        let comment = options.message.clone().unwrap_or_else(|| format!("Imported from {}", source.name));
        self.tidily(|| {
            self.leaving_nothing(|session, new| {
                let mut config = new_config(&platform);
                let step = Step {
                    created: &created,
                    created_by: None,
                    author: None,
                    comment: Some(&comment),
                    changes: &options.changes,
                };
                step.apply(&mut config)?;
                let layer = self.import_layer(session, source, listener, new)?;
                with_layer(&mut config, &layer.diff_id, &step);
                self.telling_what_is_lost(&names(name), listener, || {
                    self.commit_image(session, None, &config, layer, name, new)
                })
            })
        })
    }

    fn import_layer(
        &self,
        session: &Session,
        source: Opened,
        listener: &Listener<'_>,
        new: &mut Vec<Object>,
    ) -> Result<NewLayer> {
        let policy = self.unpack_policy()?;
        let layer_name = LayerName::Member(source.name.clone());
        let compression = source.compression();
        let media_type = match compression {
            Compression::None => media_type::OCI_LAYER,
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        };
        let name = source.name.clone();
        let (mut reader, first) = source.into_reader();
        let work = Work::Unpack;
        let finished = self
            .receive_layer(session, (layer_name, media_type), &policy, listener, work, new, |receive| {
                receive(&mut reader)
            })
            .map_err(|error| explained(error, &first))?;
        let digest = finished.digest;
        let lost = || layerstore_store::Error::NoBlob { digest: digest.clone() };
        let diff_id = self.store.blob(&digest)?.and_then(|blob| blob.diff_id).ok_or_else(lost)?;
        let tree = self.store.tree(&diff_id)?.ok_or_else(lost)?;
        let directory = self.store.layout().diff(&tree.id);
        let looked = is_image_archive(&directory);
        if looked.map_err(|source| Error::File { action: "read", path: directory, source })? {
            return Err(Error::ImageArchive { name });
        }
        Ok(NewLayer { digest, size: finished.size, diff_id, compression })
    }
}
