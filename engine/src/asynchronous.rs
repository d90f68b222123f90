//! The store for asynchronous programs.
//!
//! Everything in the store is files, locks and processors, which block; so each operation runs on a thread of tokio's pool
//! for blocking work. Dropping the future of an operation cancels it, as [`Cancel`] does.

use std::path::PathBuf;
use std::sync::Arc;

use layerstore_oci::Reference;
use layerstore_registry::Client;

use crate::build::{Built, CommitOptions};
use crate::cancel::Cancel;
use crate::collect::Collected;
use crate::containers::{Container, CreateOptions};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::load::{LoadOptions, LoadReport, Source};
use crate::pull::{PullOptions, PullReport};
use crate::push::{PushOptions, PushReport};
use crate::remove::Removed;
use crate::{Change, Layerstore, Usage};
use layerstore_gc::Policy;

/// Takes news, from several threads.
pub type Progress = Arc<dyn Fn(Event) + Send + Sync>;

/// An open image store, of which every operation is a future. Clones are the same store.
///
/// What has no method of its own is done by [`AsyncLayerstore::run`].
///
/// # Example
///
/// ```no_run
/// # async fn example() -> layerstore::Result<()> {
/// use std::sync::Arc;
/// use layerstore::{AsyncLayerstore, LoadOptions, Source};
///
/// let store = AsyncLayerstore::open("/var/lib/layerstore").await?;
/// let progress = Arc::new(|event| println!("{event:?}"));
/// let report = store.load(Source::Path("app.tar".into()), LoadOptions::default(), progress).await?;
/// let images = store.run(|store| store.images()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AsyncLayerstore(Layerstore);

/// Cancels when it is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl From<Layerstore> for AsyncLayerstore {
    fn from(store: Layerstore) -> Self {
        Self(store)
    }
}

impl AsyncLayerstore {
    /// Opens the store below `root`, see [`Layerstore::open`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::open`].
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        Ok(Self(blocking(move || Layerstore::open(&root)).await?))
    }

    /// The store in its blocking form.
    pub fn blocking(&self) -> &Layerstore {
        &self.0
    }

    /// Does `work` with the store on a thread of its own. If the future is dropped, the store that `work` has is
    /// cancelled; `work` itself runs until it returns.
    ///
    /// # Errors
    ///
    /// Those of `work`. Must be called within a runtime of tokio.
    pub async fn run<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Layerstore) -> Result<T> + Send + 'static,
    {
        let cancel = self.0.cancel.child();
        let store = self.0.with_cancel(&cancel);
        let guard = CancelOnDrop(cancel);
        let result = blocking(move || work(&store)).await;
        drop(guard);
        result
    }

    /// Loads images, see [`Layerstore::load`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::load`].
    pub async fn load(&self, source: Source, options: LoadOptions, progress: Progress) -> Result<LoadReport> {
        self.run(move |store| store.load(source, &options, &|event| progress(event))).await
    }

    /// Pulls an image, see [`Layerstore::pull`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::pull`].
    pub async fn pull(
        &self,
        client: Arc<Client>,
        reference: Reference,
        options: PullOptions,
        progress: Progress,
    ) -> Result<PullReport> {
        self.run(move |store| store.pull(&client, &reference, &options, &|event| progress(event))).await
    }

    /// Pushes an image, see [`Layerstore::push`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::push`].
    pub async fn push(
        &self,
        client: Arc<Client>,
        source: String,
        reference: Option<Reference>,
        options: PushOptions,
        progress: Progress,
    ) -> Result<PushReport> {
        self.run(move |store| {
            store.push(&client, &source, reference.as_ref(), &options, &|event| progress(event))
        })
        .await
    }

    /// Makes a container, see [`Layerstore::create`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::create`].
    pub async fn create(
        &self,
        image: impl Into<String>,
        options: CreateOptions,
        progress: Progress,
    ) -> Result<Container> {
        let image = image.into();
        self.run(move |store| store.create(&image, &options, &|event| progress(event))).await
    }

    /// Mounts a container or an image, see [`Layerstore::mount`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::mount`].
    pub async fn mount(
        &self,
        name: impl Into<String>,
        directory: Option<PathBuf>,
        progress: Progress,
    ) -> Result<PathBuf> {
        let name = name.into();
        self.run(move |store| store.mount(&name, directory.as_deref(), &|event| progress(event))).await
    }

    /// Unmounts, see [`Layerstore::unmount`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::unmount`].
    pub async fn unmount(&self, target: impl Into<std::ffi::OsString>) -> Result<Vec<PathBuf>> {
        let target = target.into();
        self.run(move |store| store.unmount(&target)).await
    }

    /// What was changed in a container, see [`Layerstore::diff`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::diff`].
    pub async fn diff(&self, container: impl Into<String>) -> Result<Vec<Change>> {
        let container = container.into();
        self.run(move |store| {
            let mut changes = Vec::new();
            let mut each = |change| {
                store.check_cancelled()?;
                changes.push(change);
                Ok(())
            };
            store.diff(&container, &|_| {}, &mut each)?;
            Ok(changes)
        })
        .await
    }

    /// Makes an image of a container, see [`Layerstore::commit`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::commit`].
    pub async fn commit(
        &self,
        container: impl Into<String>,
        name: Option<Reference>,
        options: CommitOptions,
        progress: Progress,
    ) -> Result<Built> {
        let container = container.into();
        self.run(move |store| store.commit(&container, name.as_ref(), &options, &|event| progress(event)))
            .await
    }

    /// Removes a container, see [`Layerstore::remove_container`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::remove_container`].
    pub async fn remove_container(&self, name: impl Into<String>, force: bool) -> Result<Container> {
        let name = name.into();
        self.run(move |store| store.remove_container(&name, force)).await
    }

    /// Removes an image, see [`Layerstore::remove`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::remove`].
    pub async fn remove(&self, name: impl Into<String>, force: bool) -> Result<Vec<Removed>> {
        let name = name.into();
        self.run(move |store| store.remove(&name, force)).await
    }

    /// Collects what nothing keeps, see [`Layerstore::collect`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::collect`].
    pub async fn collect(&self, policy: Policy) -> Result<Collected> {
        self.run(move |store| store.collect(&policy)).await
    }

    /// What a container has written, see [`Layerstore::container_usage`].
    ///
    /// # Errors
    ///
    /// Those of [`Layerstore::container_usage`].
    pub async fn container_usage(&self, name: impl Into<String>) -> Result<Usage> {
        let name = name.into();
        self.run(move |store| store.container_usage(&name)).await
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down.
            Err(_) => Err(Error::Cancelled),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn operations_are_futures() {
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let store = AsyncLayerstore::open(dir.path().join("store")).await.unwrap();
            assert!(store.run(Layerstore::images).await.unwrap().is_empty());
            let error = store.create("none", CreateOptions::default(), Arc::new(|_| {})).await.unwrap_err();
            assert_eq!(error.kind(), layerstore_oci::ErrorKind::NotFound);
            assert!(store.collect(Policy::default()).await.unwrap().objects.is_empty());
        });
    }

    #[test]
    fn dropping_a_future_cancels_what_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let (began, beginning) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        runtime().block_on(async {
            let store = AsyncLayerstore::open(dir.path().join("store")).await.unwrap();
            let work = store.run(move |store| {
                began.send(()).unwrap();
                while store.check_cancelled().is_ok() {
                    std::thread::yield_now();
                }
                ended.send(()).unwrap();
                store.check_cancelled()
            });
            tokio::select! {
                _ = work => panic!("it cannot end by itself"),
                () = async {
                    while beginning.try_recv().is_err() {
                        tokio::task::yield_now().await;
                    }
                } => {}
            }
            end.recv_timeout(Duration::from_mins(1)).unwrap();
            store.run(Layerstore::images).await.unwrap();
        });
    }
}
