//! Operations that are given up from outside: they end at once, and leave the store as it was.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use layerstore::registry::{Client, Options, Retry};
use layerstore::{
    AsyncLayerstore, Cancel, CreateOptions, Error, Event, Layerstore, LoadOptions, Parent, PrepareOptions,
    PullOptions, Source,
};
use layerstore_testkit::fault_proxy::{Fault, FaultProxy, Match};
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Layer, LayerBuilder};
use layerstore_testkit::registry::Registry;
use layerstore_testkit::require;
use layerstore_testkit::rng::Rng;

/// After which a person says that it hangs.
const SOON: Duration = Duration::from_secs(1);

/// Bytes of blobs that are there, or begun.
fn downloaded(root: &Path) -> u64 {
    let files = ["partial", "blobs/sha256"].map(|folder| {
        let folder = root.join(folder);
        names(&folder)
            .into_iter()
            .map(move |name| fs::metadata(folder.join(name)).map_or(0, |found| found.len()))
    });
    files.into_iter().flatten().sum()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// No session, and nothing in the trash.
#[track_caller]
fn assert_clean(root: &Path) {
    for folder in ["ingest", "trash"] {
        let left = names(&root.join(folder));
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}

/// Data that no compression makes small.
fn noise(seed: u64, bytes: usize) -> Layer {
    LayerBuilder::gzip().file(format!("noise-{seed}"), Rng::new(seed).bytes(bytes)).finish()
}

/// A registry that sends now and then, so slowly that it takes minutes.
#[test]
fn a_pull_from_a_registry_that_crawls_ends_at_once_and_is_continued() {
    let fault = Fault::Drip { bytes: 64 << 10, every: Duration::from_millis(100) };
    a_cancelled_pull_is_continued(fault, Retry::default(), Duration::ZERO);
}

/// One that sends nothing any more: it is asked after the client's time for a stall.
#[test]
fn a_pull_from_a_registry_that_stalls_ends_after_the_stall_and_is_continued() {
    let retry = Retry { stall: SOON, ..Retry::default() };
    a_cancelled_pull_is_continued(Fault::Stall { after: 1 << 20 }, retry, SOON);
}

fn a_cancelled_pull_is_continued(fault: Fault, retry: Retry, longer: Duration) {
    if !require::registry() {
        return;
    }
    let (registry, dir) = (Registry::plain(), tempfile::tempdir().unwrap());
    let size = 4 << 20;
    let image = Image::new([noise(1, size), noise(2, size)]);
    registry.push("a:1", &image);
    let proxy = FaultProxy::start(registry.address());
    proxy.on(Match::get("/blobs/").since(1), fault);
    let root = dir.path().join("store");
    let (store, client) =
        (Layerstore::open(&root).unwrap(), Client::new(Options { retry, ..Options::default() }).unwrap());
    let reference = format!("{}/a:1", proxy.host()).parse().unwrap();
    let cancel = Cancel::default();
    let ended = thread::scope(|scope| {
        let pulling = scope
            .spawn(|| store.with_cancel(&cancel).pull(&client, &reference, &PullOptions::default(), &|_| {}));
        // Until enough has come to be worth keeping.
        while downloaded(&root) < 1 << 20 {
            thread::yield_now();
        }
        assert!(!pulling.is_finished(), "it takes its time");
        let start = Instant::now();
        cancel.cancel();
        let error = pulling.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        start.elapsed()
    });
    assert!(ended < SOON + longer, "{ended:?}");
    assert_clean(&root);
    assert!(store.images().unwrap().is_empty());
    // The next goes on with what there is.
    let here = downloaded(&root);
    assert!(here >= 1 << 20, "{here} bytes were kept");
    proxy.heal();
    store.pull(&client, &reference, &PullOptions::default(), &|_| {}).unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
    assert_clean(&root);
    assert!(names(&root.join("partial")).is_empty());
}

fn packed(dir: &Path) -> (Layerstore, PathBuf) {
    let path = dir.join("image.tar");
    let image = Image::new([noise(1, 3 << 20), noise(2, 3 << 20), noise(3, 3 << 20)]);
    fs::write(&path, Layout::of("localhost/a:1", &image).archive()).unwrap();
    let root = dir.join("store");
    let store = Layerstore::open(&root).unwrap();
    let options = LoadOptions { unpack: false, ..LoadOptions::default() };
    store.load(Source::Path(path), &options, &|_| {}).unwrap();
    (store, root)
}

/// At each piece of news of unpacking in turn: what was unpacked whole may stay, what was made above it may not.
#[test]
fn privileged_what_unpacks_first_is_given_up_without_a_trace() {
    if !require::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, root) = packed(dir.path());
    let mut times = 0;
    for news in 0.. {
        let (cancel, seen) = (Cancel::default(), AtomicU32::new(0));
        let count = |_: Event| {
            if seen.fetch_add(1, Ordering::Relaxed) == news {
                cancel.cancel();
            }
        };
        let (stopped, options) = (store.with_cancel(&cancel), PrepareOptions::default());
        match stopped.snapshots("x").prepare("key", Parent::Image("localhost/a:1"), &options, &count) {
            Err(Error::Cancelled) => times += 1,
            Err(error) => panic!("{error}"),
            Ok(_) => break,
        }
        assert_clean(&root);
        assert!(store.snapshots("x").stat("key").is_err());
    }
    assert!(times > 0);
    assert_eq!(names(&root.join("overlay2")).len(), 4);
}

#[test]
fn privileged_what_is_cancelled_before_it_begins_does_nothing() {
    if !require::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, root) = packed(dir.path());
    let already = Cancel::default();
    already.cancel();
    let stopped = store.with_cancel(&already);
    assert!(matches!(
        stopped.create("localhost/a:1", &CreateOptions::default(), &|_| {}),
        Err(Error::Cancelled)
    ));
    let prepared = stopped.snapshots("x").prepare(
        "key",
        Parent::Image("localhost/a:1"),
        &PrepareOptions::default(),
        &|_| {},
    );
    assert!(matches!(prepared, Err(Error::Cancelled)));
    assert!(matches!(stopped.mount_image("localhost/a:1", None, &|_| {}), Err(Error::Cancelled)));
    assert_clean(&root);
    assert!(names(&root.join("overlay2")).is_empty());
    store.create("localhost/a:1", &CreateOptions::default(), &|_| {}).unwrap();
    assert_clean(&root);
}

#[test]
fn a_future_that_is_dropped_in_mid_load_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    let image = Image::new([noise(1, 8 << 20), noise(2, 8 << 20)]);
    fs::write(&path, Layout::of("localhost/a:1", &image).archive()).unwrap();
    let root = dir.path().join("store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = AsyncLayerstore::open(&root).await.unwrap();
        let (told, news) = mpsc::channel();
        let told = std::sync::Mutex::new(told);
        let progress = Arc::new(move |_: Event| {
            // Nobody listens any more at the end.
            let _ = told.lock().unwrap().send(());
        });
        let loading = store.load(Source::Path(path.clone()), LoadOptions::default(), progress);
        tokio::select! {
            biased;
            () = async {
                while news.try_recv().is_err() {
                    tokio::task::yield_now().await;
                }
            } => {}
            result = loading => panic!("it has told nothing: {result:?}"),
        }
        // The thread that works ends by itself, and then the channel that it has the other end of.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match news.try_recv() {
                Err(mpsc::TryRecvError::Disconnected) => break,
                _ => assert!(Instant::now() < deadline, "the load goes on"),
            }
            tokio::task::yield_now().await;
        }
    });
    drop(runtime);
    let store = Layerstore::open(&root).unwrap();
    assert!(store.images().unwrap().is_empty());
    assert_clean(&root);
    for folder in ["overlay2", "blobs/sha256"] {
        assert!(names(&root.join(folder)).is_empty(), "{folder}");
    }
    store.load(Source::Path(path), &LoadOptions::default(), &|_| {}).unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
}
