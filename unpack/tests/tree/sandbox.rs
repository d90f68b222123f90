//! A confined thread unpacks as others do, and can do nothing else.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use layerstore_testkit::require;
use layerstore_unpack::{Confinement, confine};

use super::*;

/// Runs `work` on a thread that is confined to `directory`; nothing where such tests are left out.
fn confined<T: Send>(directory: &Path, work: impl FnOnce() -> T + Send) -> Option<T> {
    if !require::landlock(layerstore_unpack::sandbox_is_available()) {
        return None;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            assert_eq!(confine(&[directory]).unwrap(), Confinement::Landlock);
            work()
        });
        Some(thread.join().unwrap())
    })
}

#[test]
fn a_confined_thread_reaches_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let refused = |result: std::io::Result<()>| match result {
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}"),
        Ok(()) => panic!("it was allowed"),
    };
    let run = confined(&inside, || {
        fs::write(inside.join("file"), "mine").unwrap();
        refused(File::open(outside.join("file")).map(drop));
        refused(fs::write(outside.join("file"), "changed"));
        refused(File::create(outside.join("new")).map(drop));
        refused(fs::create_dir(outside.join("dir")));
        refused(fs::remove_file(outside.join("file")));
        refused(std::os::unix::fs::symlink("x", outside.join("link")));
        // To a file system that is there or not, links out of the domain are another device.
        assert!(fs::hard_link(inside.join("file"), outside.join("hard")).is_err());
        assert!(fs::rename(inside.join("file"), outside.join("moved")).is_err());
        refused(Command::new("/bin/true").status().map(drop));
        // Only newer kernels confine the network (Linux 6.7).
        if let Err(error) = TcpStream::connect(address) {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
    });
    if run.is_some() {
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"secret");
    }
    // The others are as free as before.
    fs::write(outside.join("new"), "").unwrap();
}

#[test]
fn a_confined_thread_unpacks_everything() {
    let beside = tempfile::tempdir().unwrap();
    let target = beside.path().join("tree");
    fs::create_dir(&target).unwrap();
    let mut items = vec![
        dir("a").mode(0o555),
        file("a/file", "data").xattr("user.k", "v").mode(0o4755),
        dir("b/c"),
        hard_link("b/c/hard", "a/file"),
        symlink("b/link", "../a"),
        file("b/link/through", "x"),
        fifo("b/pipe"),
        file("b/pipe", "replaced"),
        file(".wh.gone", ""),
        file("b/.wh..wh..opq", ""),
        hard_link("late", "z"),
        file("z", "end"),
    ];
    if rustix::process::geteuid().is_root() {
        items.push(Item::from(Entry::char_device(b"null", 1, 3)).owner(1, 2));
    }
    let stream = tar(&items);
    let run = confined(&target, || {
        let umask = PrivateUmask::enter();
        layerstore_unpack::unpack(stream.as_slice(), None, &target, &options(), &umask).unwrap().0
    });
    if let Some(unpacked) = run {
        let free = apply(&items);
        assert_eq!(unpacked, free.unpacked);
        Snapshot::of(&target).assert_same(&free.snapshot());
    }
}
