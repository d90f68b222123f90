//! A tree that changes while it is read.

use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use layerstore_oci::ErrorKind;
use layerstore_testkit::require;

use super::*;

/// Does something once, when a header of the given path is written.
struct Meddler<'a, F> {
    archive: Vec<u8>,
    path: &'a str,
    act: Option<F>,
}

impl<F: FnOnce()> Write for Meddler<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.archive.extend_from_slice(bytes);
        let name = format!("{}\0", self.path);
        if bytes.len() == 512
            && bytes.starts_with(name.as_bytes())
            && let Some(act) = self.act.take()
        {
            act();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a layer and changes the tree when `path` is written.
fn meddle(upper: &Upper, path: &str, act: impl FnOnce(&Upper)) -> Result<Layer, DiffError> {
    let meddler = Meddler { archive: Vec::new(), path, act: Some(|| act(upper)) };
    let (result, meddler) = diff(upper.0.path(), meddler, &options())?;
    assert!(meddler.act.is_none(), "`{path}` was never written");
    Ok(Layer { stream: meddler.archive, result })
}

fn tree() -> Upper {
    let upper = Upper::new();
    upper.file("a", "").dir("d").file("d/f", [1; 9000]).file("d/g", "").file("z", "last");
    build::set_mtime(&upper.path("d/f"), (1, 1));
    upper
}

#[track_caller]
fn assert_changed(result: Result<Layer, DiffError>, path: &str) {
    let error = result.map(|layer| layer.listing()).unwrap_err();
    assert!(matches!(&error, DiffError::Changed { file } if file == path), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::InUse);
}

fn open(upper: &Upper, path: &str) -> std::fs::File {
    std::fs::File::options().write(true).open(upper.path(path)).unwrap()
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let acts: [fn(&Upper); 6] = [
        |upper| open(upper, "d/f").set_len(100).unwrap(),
        |upper| open(upper, "d/f").set_len(0).unwrap(),
        |upper| open(upper, "d/f").write_all_at(b"x", 9000).unwrap(),
        |upper| open(upper, "d/f").write_all_at(b"x", 0).unwrap(),
        // Whoever sets the time back cannot hide it.
        |upper| {
            open(upper, "d/f").write_all_at(b"x", 0).unwrap();
            build::set_mtime(&upper.path("d/f"), (1, 1));
        },
        |upper| std::fs::remove_file(upper.path("d/f")).unwrap(),
    ];
    for act in acts {
        assert_changed(meddle(&tree(), "d/f", act), "d/f");
    }
}

#[test]
fn what_is_replaced_before_it_is_read_is_what_it_became() {
    let replace = |path: &'static str, make: fn(&Upper)| {
        meddle(&tree(), "a", |upper| {
            drop(std::fs::remove_file(upper.path(path)));
            drop(std::fs::remove_dir_all(upper.path(path)));
            make(upper);
        })
    };
    let kind = |result: Result<Layer, DiffError>, path: &str| result.unwrap().at(path).kind;
    assert_eq!(kind(replace("z", |upper| _ = upper.fifo("z")), "z"), EntryKind::Fifo);
    assert_eq!(kind(replace("z", |upper| _ = upper.symlink("z", "/etc/passwd")), "z"), EntryKind::Symlink);
    assert_eq!(kind(replace("z", |upper| _ = upper.dir("z").file("z/f", "")), "z/"), EntryKind::Directory);
    assert_eq!(kind(replace("d", |upper| _ = upper.symlink("d", "/etc")), "d"), EntryKind::Symlink);
    assert_eq!(kind(replace("d", |upper| _ = upper.fifo("d")), "d"), EntryKind::Fifo);
    assert_changed(replace("z", |_| ()), "z");
    assert_changed(replace("d", |_| ()), "d");
}

#[test]
fn a_directory_that_moves_while_it_is_read_is_an_error() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("moved");
    let result = meddle(&tree(), "d/g", |upper| std::fs::rename(upper.path("d"), &target).unwrap());
    assert_changed(result, "d");
    // Names that come and go while it is listed.
    assert_changed(meddle(&tree(), "d/", |upper| _ = upper.file("d/new", "")), "d");
}

#[test]
fn an_inode_that_is_another_file_by_now_is_no_link() {
    let upper = tree();
    upper.link("d/f", "y");
    let result = meddle(&upper, "d/g", |upper| open(upper, "y").write_all_at(b"other", 0).unwrap());
    assert_changed(result, "y");
}

#[test]
fn privileged_a_race_opens_nothing_that_it_should_not() {
    if !require::root() {
        return;
    }
    let upper = tree();
    upper.file("secret", "outside");
    let outside = tempfile::tempdir().unwrap();
    std::fs::rename(upper.path("secret"), outside.path().join("secret")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let make: [&dyn Fn(&Path); 4] = [
                &|path| std::fs::write(path, "honest").unwrap(),
                &|path| build::node(path, FileType::Fifo, 0),
                &|path| rustix::fs::symlink(outside.path().join("secret"), path).unwrap(),
                &|path| rustix::fs::symlink(outside.path(), path).unwrap(),
            ];
            for make in make.iter().cycle() {
                make(&upper.path("new"));
                std::fs::rename(upper.path("new"), upper.path("d/f")).unwrap();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..300 {
            match upper.diff_with(&options()) {
                Err(error) => assert!(matches!(error, DiffError::Changed { .. }), "{error:?}"),
                Ok(layer) => {
                    assert!(!layer.listing().is_empty());
                    assert!(!layer.stream.windows(7).any(|bytes| bytes == b"outside"));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_output_that_fails_is_an_error_of_its_kind() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let upper = tree();
    let length = upper.diff().stream.len();
    for room in (0..length).step_by(512) {
        let error = diff(upper.0.path(), Full(room), &options()).map(|_| ()).unwrap_err();
        assert!(matches!(error, DiffError::Output(_)), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
    }
    assert!(diff(upper.0.path(), Full(length), &options()).is_ok());
}
