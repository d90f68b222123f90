//! The same archives read by this crate, by Python's `tarfile` and by GNU tar: thousands of well-formed ones in
//! every format, and thousands of damaged ones.
//!
//! An archive is *well-formed* if GNU tar lists it without a word, Python parses it to its end without an error,
//! and both see the same. All that is not agreement is on one of the lists in [`known`], each with its reason.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod known;
mod peers;
mod view;
mod writer;

use layerstore_testkit::rawtar::{self, Names};
use layerstore_testkit::require;
use layerstore_testkit::rng::Rng;
use peers::{GnuTar, Python};
use view::{compare, explain};

/// What there was, for the test's output.
#[derive(Debug, Default)]
struct Tally {
    archives: usize,
    entries: usize,
    well_formed: usize,
    accepted: usize,
    /// Differences that are known, by reason.
    known: std::collections::BTreeMap<&'static str, usize>,
}

struct Judge {
    test: &'static str,
    python: Python,
    gnu: GnuTar,
    tally: Tally,
    failures: Vec<String>,
}

impl Judge {
    fn new(test: &'static str) -> Self {
        Self {
            test,
            python: Python::start(),
            gnu: GnuTar::start(),
            tally: Tally::default(),
            failures: Vec::new(),
        }
    }

    /// Compares the three. `sound` is an archive that nobody may complain about.
    fn judge(&mut self, archive: &[u8], seed: u64, sound: bool) {
        let ours = view::ours(archive);
        let python = self.python.list(archive);
        let gnu = self.gnu.list(archive);
        self.tally.archives += 1;
        let agree = matches!((&python, &gnu), (Ok(python), Ok(gnu)) if compare(python, gnu).is_empty());
        self.tally.well_formed += usize::from(agree);
        let mut problems = Vec::new();
        match &ours {
            Err(error) => {
                if sound {
                    problems.push(format!("refused: {error}"));
                } else if agree {
                    self.excuse(known::refused(&error.to_string()), &mut problems, || {
                        format!("refused: {error}")
                    });
                }
            }
            Ok(ours) => {
                self.tally.accepted += 1;
                self.tally.entries += ours.len();
                match &gnu {
                    Ok(gnu) => {
                        let fields = compare(ours, gnu);
                        let known = known::unlike_gnu(archive, &fields);
                        if !fields.is_empty() {
                            let text = || format!("unlike GNU tar in {fields:?}: {}", explain(ours, gnu));
                            self.excuse(known, &mut problems, text);
                        }
                    }
                    Err(error) => {
                        self.excuse(known::gnu_complains(error), &mut problems, || {
                            format!("GNU tar: {error}")
                        });
                    }
                }
                match &python {
                    Ok(python) => {
                        let fields = compare(ours, python);
                        if !fields.is_empty() && (sound || agree) {
                            let known = known::unlike_python(archive, &fields);
                            let text = || format!("unlike Python in {fields:?}: {}", explain(ours, python));
                            self.excuse(known, &mut problems, text);
                        }
                    }
                    Err(error) if sound => {
                        let known = known::unlike_python(archive, &["entries"]);
                        self.excuse(known, &mut problems, || format!("Python: {error}"));
                    }
                    Err(_) => {}
                }
            }
        }
        if !problems.is_empty() {
            let path = std::env::temp_dir().join(format!("layerstore-{}-{seed}.tar", self.test));
            std::fs::write(&path, archive).unwrap();
            self.failures.push(format!("seed {seed}, {}:\n {}", path.display(), problems.join("\n ")));
        }
    }

    fn excuse(
        &mut self,
        known: Option<&'static str>,
        problems: &mut Vec<String>,
        text: impl FnOnce() -> String,
    ) {
        match known {
            Some(reason) => *self.tally.known.entry(reason).or_default() += 1,
            None => problems.push(text()),
        }
    }

    fn finish(self) -> Tally {
        let shown =
            self.failures.iter().take(10).map(|text| format!("\n{text}\n")).collect::<Vec<_>>().concat();
        assert!(self.failures.is_empty(), "{} archives: {shown}", self.failures.len());
        self.tally
    }
}

/// A few of them in every run, twenty times as many others on demand.
fn seeds(count: u64) -> std::ops::Range<u64> {
    if require::is_long() { 1_000_000..1_000_000 + 20 * count } else { 0..count }
}

#[test]
fn well_formed_archives_read_alike() {
    let mut judge = Judge::new("well-formed");
    for seed in seeds(2000) {
        let rng = &mut Rng::new(seed);
        let archive = if seed % 5 == 0 { writer::archive(rng) } else { rawtar::archive(rng, Names::Any) };
        judge.judge(&archive, seed, true);
    }
    println!("{:#?}", judge.finish());
}

#[test]
fn damaged_archives_read_alike_or_not_at_all() {
    let mut judge = Judge::new("damaged");
    for seed in seeds(3000) {
        let rng = &mut Rng::new(!seed);
        let mut archive = rawtar::archive(rng, Names::Any);
        let other = rawtar::archive(rng, Names::Any);
        rawtar::mutate(&mut archive, &other, rng);
        judge.judge(&archive, seed, false);
    }
    println!("{:#?}", judge.finish());
}
