//! What one worker does, a command after the other.

use std::fs;
use std::path::PathBuf;

use layerstore_testkit::rng::Rng;
use layerstore_testkit::sandbox::{Run, until_free};

use super::images::{self, Known};
use super::{Lost, Soak};
use crate::remote::pull;

const NO_IMAGE: Lost = (3, "no such image: ");
const NO_CONTAINER: Lost = (3, "no such container: ");
const NEITHER: Lost = (3, "no such container or image: ");
const NOT_MOUNTED: Lost = (3, "not mounted: ");
const USED: Lost = (4, " is used by container");
const MOUNTED: Lost = (4, " is mounted at ");
/// It was mounted in this moment: the mount is there, and its row not yet.
const IN_USE: Lost = (4, " is in use by ");
const TAKEN: Lost = (4, " is taken by container");

/// One of the processes, which runs one command at a time.
pub(super) struct Worker<'a> {
    soak: &'a Soak,
    number: usize,
    rng: Rng,
    /// Images of its own, all of which are loaded.
    private: Vec<Known>,
    alias: Known,
    /// Where it mounts.
    place: PathBuf,
    /// Where it writes archives.
    out: PathBuf,
}

impl<'a> Worker<'a> {
    pub(super) fn new(soak: &'a Soak, number: usize, seed: u64) -> Self {
        let place = soak.store.dir().join(format!("place-{number}"));
        fs::create_dir(&place).unwrap();
        let worker = Self {
            soak,
            number,
            rng: Rng::new(seed ^ (number as u64) << 32),
            private: images::private(&soak.store, number),
            alias: images::alias(&soak.store, number),
            out: soak.store.dir().join(format!("out-{number}.tar")),
            place,
        };
        for known in &worker.private {
            worker.must(&["load", "-i", known.archives[0].to_str().unwrap()]);
        }
        worker
    }

    /// In the end what is its own is still there.
    pub(super) fn finish(&self) {
        self.private.iter().for_each(|known| self.look(known));
    }

    pub(super) fn step(&mut self) {
        match self.rng.below(100) {
            0..14 => self.load(),
            14..20 => self.pull(),
            20..29 => self.create(),
            29..37 => self.remove_container(),
            37..43 => self.mount_container(),
            43..48 => self.unmount_container(),
            48..53 => self.mount_image(),
            53..65 => self.remove_image(),
            65..69 => self.tag(),
            69..74 => self.list(),
            74..78 => drop(self.must(&["gc"])),
            78..80 => drop(self.must(&["gc", "--dry-run"])),
            80..82 => self.save(),
            82..85 => self.look_at_container(),
            85..87 => self.commit(),
            87..90 => self.use_private_container(),
            90..93 => self.replace_private(),
            93..96 => self.use_alias(),
            _ => {
                let which = self.rng.index(self.private.len());
                self.look(&self.private[which]);
            }
        }
    }

    /// Runs a command that may lose to another worker. Returns what it printed if it did not.
    fn may(&self, args: &[&str], lost: &[Lost]) -> Option<String> {
        let run = self.soak.store.run(args);
        self.soak.judge(self.number, &run, &args.join(" "), lost)
    }

    /// Runs a command that nothing can be in the way of.
    fn must(&self, args: &[&str]) -> Option<String> {
        self.may(args, &[])
    }

    /// Unmounts what this process has looked into.
    fn must_unmount(&self, what: &str) {
        let run = until_free(|| self.soak.store.run(["umount", what]));
        self.soak.judge(self.number, &run, &format!("umount {what}"), &[]);
    }

    /// Removes a container that was mounted: another test may have begun a mount namespace meanwhile, which has a copy of the
    /// mount for as long as it lasts.
    fn must_remove(&self, container: &str) {
        let mut run = until_free(|| self.soak.store.run(["rm", container]));
        for _ in 0..10 {
            if run.code == 4 {
                run = until_free(|| self.soak.store.run(["rm", container]));
            }
        }
        self.soak.judge(self.number, &run, &format!("rm {container}"), &[]);
    }

    fn assert(&self, is_so: bool, what: impl FnOnce() -> String) {
        if !is_so {
            self.soak.fault(self.number, &what());
        }
    }

    fn load(&mut self) {
        let known = self.rng.pick(&self.soak.shared);
        let archive = self.rng.pick(&known.archives);
        let mut args = vec!["load", "-i", archive.to_str().unwrap()];
        if self.rng.one_in(6) {
            args.push("--no-unpack");
        }
        self.must(&args);
    }

    fn pull(&mut self) {
        let which = self.rng.index(self.soak.shared.len());
        let name = self.soak.registry.reference(&format!("shared:{which}"));
        let run: Run = pull(&self.soak.store, &[&name]);
        self.soak.judge(self.number, &run, &format!("pull {name}"), &[]);
    }

    /// A name that anybody may have removed.
    fn image(&mut self) -> String {
        let which = self.rng.index(self.soak.shared.len());
        match self.rng.below(8) {
            0..5 => self.soak.shared[which].name.clone(),
            5 => format!("localhost/tagged:{}", which % 3),
            6 => format!("localhost/committed:{}", which % 3),
            _ => self.soak.registry.reference(&format!("shared:{which}")),
        }
    }

    fn container(&mut self) -> String {
        format!("c-{}", self.rng.below(10))
    }

    fn create(&mut self) {
        let (image, name) = (self.image(), self.container());
        self.may(&["create", "--name", &name, &image], &[NO_IMAGE, TAKEN]);
    }

    fn remove_container(&mut self) {
        let name = self.container();
        if self.rng.one_in(3) {
            // It unmounts, and then another worker mounts.
            self.may(&["rm", "-f", &name], &[MOUNTED, IN_USE]);
        } else {
            self.may(&["rm", &name], &[NO_CONTAINER, MOUNTED, IN_USE]);
        }
    }

    fn mount_container(&mut self) {
        let name = self.container();
        self.may(&["mount", &name], &[NEITHER, NO_CONTAINER]);
    }

    fn unmount_container(&mut self) {
        let name = self.container();
        self.may(&["umount", &name], &[NEITHER, NOT_MOUNTED]);
    }

    fn mount_image(&mut self) {
        let which = self.rng.index(self.soak.shared.len());
        let known = &self.soak.shared[which];
        let place = self.place.to_str().unwrap();
        if self.may(&["mount", &known.name, place], &[NEITHER, NO_IMAGE]).is_some() {
            self.assert_shows(known);
            self.must_unmount(place);
        }
    }

    /// What is mounted at its place has the image's files, all of which can be read.
    fn assert_shows(&self, known: &Known) {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.place).unwrap() {
            let entry = entry.unwrap();
            let read = fs::read(entry.path());
            self.assert(read.is_ok(), || format!("{}: {}: {read:?}", known.name, entry.path().display()));
            names.push(entry.file_name().into_string().unwrap());
        }
        names.sort();
        self.assert(names == known.files, || format!("{} is mounted with {names:?}", known.name));
    }

    fn remove_image(&mut self) {
        let name = self.image();
        if self.rng.one_in(3) {
            self.must(&["rmi", "-f", &name]);
        } else {
            self.may(&["rmi", &name], &[NO_IMAGE, USED, MOUNTED]);
        }
    }

    fn tag(&mut self) {
        let (image, number) = (self.image(), self.rng.below(3));
        self.may(&["tag", &image, &format!("localhost/tagged:{number}")], &[NO_IMAGE]);
    }

    fn list(&mut self) {
        let lists =
            ["images -a", "images -q", "ps -a", "ps -as", "info", "mount", "df", "df -v", "df --no-scan"];
        let args: Vec<_> = self.rng.pick(&lists).split(' ').collect();
        self.must(&args);
    }

    fn save(&mut self) {
        let name = self.image();
        let out = self.out.to_str().unwrap().to_owned();
        if self.may(&["save", "-o", &out, &name], &[NO_IMAGE]).is_some() {
            // Whole, or it would be refused.
            self.must(&["load", "-q", "-i", &out]);
        }
    }

    fn look_at_container(&mut self) {
        let name = self.container();
        let out = self.out.to_str().unwrap().to_owned();
        if self.rng.one_in(2) {
            self.may(&["diff", &name], &[NO_CONTAINER]);
        } else {
            self.may(&["export", "-o", &out, &name], &[NO_CONTAINER]);
        }
    }

    fn commit(&mut self) {
        let (name, number) = (self.container(), self.rng.below(3));
        self.may(&["commit", &name, &format!("localhost/committed:{number}")], &[NO_CONTAINER]);
    }

    /// A whole life of a container that no other worker has a name for.
    fn use_private_container(&mut self) {
        let known = &self.private[self.rng.index(self.private.len())];
        let name = format!("private-{}", self.number);
        let image = format!("localhost/made-by-{}:1", self.number);
        let place = self.place.to_str().unwrap();
        self.must(&["create", "--name", &name, &known.name]);
        self.must(&["mount", &name, place]);
        self.assert_shows(known);
        let outcome = fs::write(self.place.join("written"), "by a worker")
            .and_then(|()| fs::remove_file(self.place.join(&known.file.0)));
        self.assert(outcome.is_ok(), || format!("{name} cannot be changed: {outcome:?}"));
        self.must_unmount(place);
        let changes = self.must(&["diff", &name]).unwrap_or_default();
        let expected = format!("D /{}\nA /written\n", known.file.0);
        let mut lines: Vec<_> = changes.lines().collect();
        lines.sort_unstable_by_key(|line| line.chars().rev().collect::<String>());
        self.assert(
            changes.lines().count() == 2 && expected.lines().all(|line| lines.contains(&line)),
            || format!("diff says {changes}"),
        );
        self.must(&["commit", &name, &image]);
        self.must_remove(&name);
        let content = self.must(&["cat", &image, "/written"]);
        self.assert(content.as_deref() == Some("by a worker"), || format!("{image} has {content:?}"));
        self.must(&["rmi", &image]);
    }

    /// Takes an image of its own away, and loads it again in the other form.
    fn replace_private(&mut self) {
        let which = self.rng.index(self.private.len());
        let known = &self.private[which];
        let archive = self.rng.pick(&known.archives).to_str().unwrap();
        self.must(&["rmi", &known.name]);
        self.must(&["load", "-i", archive]);
        self.look(known);
    }

    /// Others remove the same image under the names that they know.
    fn use_alias(&mut self) {
        let archive = self.rng.pick(&self.alias.archives).to_str().unwrap();
        self.must(&["load", "-i", archive]);
        self.look(&self.alias);
        self.must(&["rmi", "-f", &self.alias.name]);
    }

    /// An image that has a name of this worker's own is whole.
    fn look(&self, known: &Known) {
        let listed = self.must(&["ls", &known.name]).unwrap_or_default();
        self.assert(listed.lines().eq(known.files.iter().map(String::as_str)), || {
            format!("ls of {} says {listed}", known.name)
        });
        let (file, content) = &known.file;
        let found = self.must(&["cat", &known.name, &format!("/{file}")]);
        self.assert(found.as_ref() == Some(content), || format!("{file} of {} is {found:?}", known.name));
        let place = self.place.to_str().unwrap();
        if self.must(&["mount", &known.name, place]).is_some() {
            self.assert_shows(known);
            self.must_unmount(place);
        }
    }
}
