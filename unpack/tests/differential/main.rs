//! The same archives unpacked by this crate and by GNU tar, well-formed ones in every format and damaged
//! ones. `tests/differential` of `layerstore-tar` compares what readers list; this is about trees.
//!
//! All that is not agreement is on one of the lists in [`known`], each with its reason.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod known;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use layerstore_testkit::rawtar::{self, Names};
use layerstore_testkit::require;
use layerstore_testkit::rng::Rng;
use layerstore_testkit::tree::{Difference, Entry, Snapshot};
use layerstore_unpack::{Limits, Options, OverlayXattr, Ownership, PrivateUmask};
use rustix::fs::FileType;

/// Larger files are not unpacked here; holes make them cheap to announce.
const MOST: u64 = 8 << 20;

/// What there was, for the test's output.
#[derive(Debug, Default)]
struct Tally {
    archives: usize,
    by_gnu_tar: usize,
    by_us: usize,
    too_large: usize,
    known: BTreeMap<&'static str, usize>,
}

struct Judge {
    test: &'static str,
    tally: Tally,
    failures: Vec<String>,
}

/// A tree, and directories in it about which nothing was said; or the complaint.
type Outcome = Result<(Snapshot, Vec<Vec<u8>>), String>;

impl Judge {
    fn new(test: &'static str) -> Self {
        Self { test, tally: Tally::default(), failures: Vec::new() }
    }

    /// `sound` is an archive that nobody may complain about.
    fn judge(&mut self, archive: &[u8], seed: u64, sound: bool) {
        self.tally.archives += 1;
        if too_large(archive) {
            self.tally.too_large += 1;
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (ours, gnu) = (by_us(dir.path(), archive), by_gnu_tar(dir.path(), archive));
        self.tally.by_gnu_tar += usize::from(gnu.is_ok());
        self.tally.by_us += usize::from(ours.is_ok());
        let problem = match (ours, gnu) {
            (Ok((ours, implied)), Ok((gnu, _))) => {
                let found = differences(ours, gnu, &implied);
                let text =
                    found.iter().map(|difference| format!("\n  {difference}")).collect::<Vec<_>>().concat();
                (!found.is_empty())
                    .then(|| (known::unlike_gnu(archive, &found), format!("unlike GNU tar:{text}")))
            }
            (Err(error), Ok(_)) => Some((known::refused(&error), format!("refused: {error}"))),
            (Ok(_), Err(error)) => Some((known::gnu_complains(archive, &error), format!("GNU tar: {error}"))),
            (Err(_), Err(_)) if !sound => None,
            (Err(error), Err(gnu)) => Some((None, format!("refused: {error}; GNU tar: {gnu}"))),
        };
        match problem {
            None => {}
            Some((Some(reason), _)) if !sound => *self.tally.known.entry(reason).or_default() += 1,
            Some((_, problem)) => {
                let path = std::env::temp_dir().join(format!("layerstore-{}-{seed}.tar", self.test));
                std::fs::write(&path, archive).unwrap();
                self.failures.push(format!("seed {seed}, {}:\n {problem}", path.display()));
            }
        }
    }

    fn finish(self) -> Tally {
        let shown =
            self.failures.iter().take(10).map(|text| format!("\n{text}\n")).collect::<Vec<_>>().concat();
        assert!(self.failures.is_empty(), "{} archives: {shown}", self.failures.len());
        self.tally
    }
}

fn too_large(archive: &[u8]) -> bool {
    let mut reader = layerstore_tar::Reader::new(archive);
    while let Ok(Some(entry)) = reader.next_entry() {
        if entry.size > MOST {
            return true;
        }
    }
    false
}

fn by_us(dir: &Path, archive: &[u8]) -> Outcome {
    let (target, canary) = (dir.join("ours"), dir.join("canary"));
    std::fs::create_dir(&target).unwrap();
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("file"), "untouched").unwrap();
    let before = Snapshot::of(&canary);
    let options =
        Options { overlay: OverlayXattr::Trusted, ownership: Ownership::Layer, limits: Limits::default() };
    // On a thread of its own, as the umask is that thread's.
    let result = std::thread::scope(|scope| {
        let unpack = || {
            layerstore_unpack::unpack(
                archive,
                Some(archive.len() as u64),
                &target,
                &options,
                &PrivateUmask::enter(),
            )
        };
        scope.spawn(unpack).join().unwrap()
    });
    before.assert_same(&Snapshot::of(&canary));
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 2, "something appeared outside of the tree");
    match result {
        Ok((unpacked, _)) => Ok((Snapshot::of(&target), unpacked.implied)),
        Err(error) => Err(chain(&error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Accepted is what it extracts without a word. It may not write large files: what an archive announces is not
/// always what this crate reads in it.
fn by_gnu_tar(dir: &Path, archive: &[u8]) -> Outcome {
    let target = dir.join("gnu");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(dir.join("archive.tar"), archive).unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -f 65536; exec tar \"$@\"", "tar"])
        .args([
            "--extract",
            "--preserve-permissions",
            "--numeric-owner",
            "--same-owner",
            "--delay-directory-restore",
        ])
        .args(["--xattrs", "--xattrs-include=*", "--warning=no-timestamp", "--warning=no-contiguous-cast"])
        .args([
            "--warning=no-alone-zero-block",
            "--warning=no-unknown-keyword",
            "--file=archive.tar",
            "-C",
            "gnu",
        ])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .env_remove("TAR_OPTIONS")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() && complaint.is_empty() {
        return Ok((Snapshot::of(&target), Vec::new()));
    }
    Err(format!("{}: {complaint}", output.status))
}

/// Directories that the archive does not list look as each likes.
fn differences(mut ours: Snapshot, mut gnu: Snapshot, implied: &[Vec<u8>]) -> Vec<Difference> {
    for path in implied {
        if let (Some(ours), Some(gnu)) = (ours.entries.get_mut(path), gnu.entries.get_mut(path)) {
            (ours.mode, ours.uid, ours.gid, ours.mtime) = (gnu.mode, gnu.uid, gnu.gid, gnu.mtime);
        }
    }
    // A device 0/0 is overlayfs's whiteout here, which has no attributes.
    for (path, ours) in &mut ours.entries {
        let is_hidden = |entry: &Entry| entry.kind == FileType::CharacterDevice && entry.rdev == 0;
        if let Some(gnu) = gnu.entries.get(path).filter(|gnu| is_hidden(gnu) && is_hidden(ours)) {
            *ours = gnu.clone();
        }
    }
    ours.compare(&gnu)
}

/// A few of them in every run, 25 times as many others on demand.
fn seeds(count: u64) -> std::ops::Range<u64> {
    if require::is_long() { 1_000_000..1_000_000 + 25 * count } else { 0..count }
}

#[test]
fn privileged_well_formed_archives_give_the_trees_of_gnu_tar() {
    if !require::root() {
        return;
    }
    let mut judge = Judge::new("tree");
    for seed in seeds(400) {
        judge.judge(&rawtar::archive(&mut Rng::new(seed), Names::Tree), seed, true);
    }
    println!("{:#?}", judge.finish());
}

#[test]
fn privileged_damaged_archives_give_the_trees_of_gnu_tar_or_none() {
    if !require::root() {
        return;
    }
    let mut judge = Judge::new("damaged-tree");
    for seed in seeds(800) {
        let rng = &mut Rng::new(!seed);
        let mut archive = rawtar::archive(rng, Names::Tree);
        let other = rawtar::archive(rng, Names::Tree);
        rawtar::mutate(&mut archive, &other, rng);
        judge.judge(&archive, seed, false);
    }
    println!("{:#?}", judge.finish());
}
