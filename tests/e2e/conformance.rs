//! Every case of `fixtures/layers/cases.toml`, through real overlay mounts: alone and in a stack of three, layers
//! unpacked one by one and side by side, as root and in a user namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use layerstore_testkit::cases::{self, Look};
use layerstore_testkit::image::Layout;
use layerstore_testkit::sandbox::{Run, Sandbox, until_free};
use layerstore_testkit::tree::Snapshot;
use layerstore_testkit::user_namespace::UserNamespace;

/// A way of getting from a layer to what is seen.
struct Way {
    name: &'static str,
    store: Sandbox,
    jobs: &'static str,
    namespace: Option<UserNamespace>,
}

impl Way {
    fn all() -> Option<Vec<Self>> {
        let mut ways = Vec::new();
        for (name, jobs, rootless) in [
            ("one by one as root", "jobs=1", false),
            ("side by side as root", "jobs=4", false),
            ("one by one in a user namespace", "jobs=1", true),
            ("side by side in a user namespace", "jobs=4", true),
        ] {
            let namespace = rootless.then(UserNamespace::new);
            ways.push(Self { name, store: Sandbox::new()?, jobs, namespace });
        }
        Some(ways)
    }

    fn run(&self, args: &[&str]) -> Run {
        let mut command = self.store.command(args);
        match &self.namespace {
            Some(namespace) => Run::of(&mut namespace.enter(&command), &[]),
            None => Run::of(&mut command, &[]),
        }
    }

    fn load(&self, name: &str, archive: &[u8]) -> Run {
        let archive = self.store.write(name, archive);
        self.run(&["load", "--limit", self.jobs, "-i", archive.to_str().unwrap()])
    }

    /// What is seen of an image that is loaded.
    fn look(&self, name: &str) -> (Vec<String>, Snapshot) {
        let at = self.store.dir().join("mounted");
        std::fs::create_dir_all(&at).unwrap();
        self.run(&["mount", name, at.to_str().unwrap()]).success();
        let seen: PathBuf = self.namespace.as_ref().map_or(at.clone(), |namespace| namespace.outside(&at));
        let (lines, snapshot) = (cases::describe(&seen), Snapshot::of(&seen));
        let listed = self.run(&["ls", "-R", "-a", "--format", "{{.Path}}", name]).success().stdout;
        let listed: BTreeSet<_> = listed.lines().map(|line| line.trim_start_matches('/')).collect();
        let paths = snapshot.entries.keys().filter(|path| !path.is_empty());
        let mounted: BTreeSet<_> = paths.map(|path| str::from_utf8(path).unwrap()).collect();
        assert_eq!(listed, mounted, "{name}: `ls` (left) and the mount (right)");
        until_free(|| self.run(&["umount", at.to_str().unwrap()])).success();
        (lines, snapshot)
    }

    /// What comes out of all looks: what is seen, or the message of the refusal.
    fn results(&self, looks: &[(String, Look)]) -> Vec<Result<(Vec<String>, Snapshot), String>> {
        let names: Vec<_> = (0..looks.len()).map(|number| format!("localhost/case:{number}")).collect();
        let accepted = names.iter().zip(looks).filter(|(_, (_, look))| look.expected.is_ok());
        let layout =
            accepted.fold(Layout::new(), |layout, (name, (_, look))| layout.image(name, &look.image));
        self.load("all.tar", &layout.archive()).success();
        names
            .iter()
            .zip(looks)
            .map(|(name, (_, look))| {
                if look.expected.is_ok() {
                    return Ok(self.look(name));
                }
                let trees = self.store.names_of_trees();
                let run = self.load("refused.tar", &Layout::of(name, &look.image).archive());
                if run.code == 0 {
                    return Ok(self.look(name));
                }
                assert!(matches!(run.code, 1 | 5), "{run}");
                assert!(self.store.names_of_trees() == trees, "it left something: {run}");
                assert!(!self.run(&["images"]).stdout.contains(name), "it left its name: {run}");
                Err(run.stderr)
            })
            .collect()
    }
}

#[test]
fn privileged_every_case_comes_out_as_its_rule_says() {
    let Some(ways) = Way::all() else { return };
    let looks: Vec<(String, Look)> = cases::all()
        .into_iter()
        .flat_map(|case| {
            let place = |kind: &str| format!("{} ({kind}; {})", case.name, case.rule);
            [(place("alone"), case.alone.clone()), (place("stacked"), case.stacked.clone())]
        })
        .collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = ways.iter().map(|way| scope.spawn(|| way.results(&looks))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut wrong = Vec::new();
    for (number, (place, look)) in looks.iter().enumerate() {
        let mut first: Option<&Snapshot> = None;
        for (way, results) in ways.iter().zip(&results) {
            match (&results[number], &look.expected) {
                (Ok((seen, snapshot)), Ok(expected)) => {
                    if seen != expected {
                        wrong.push(format!("{place}, {}: {seen:?} instead of {expected:?}", way.name));
                    }
                    let found = first.get_or_insert(snapshot).compare(snapshot);
                    wrong.extend(found.iter().map(|found| format!("{place}, {}: {found}", way.name)));
                }
                (Err(message), Err(expected)) if message.contains(expected.as_str()) => {}
                (found, expected) => {
                    let found = found.as_ref().map(|(seen, _)| seen);
                    wrong.push(format!("{place}, {}: {found:?} instead of {expected:?}", way.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of the looks are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn cases_have_names_of_their_own_and_rules() {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for case in cases::all() {
        assert!(!case.rule.is_empty());
        assert_eq!(names.insert(case.name.clone(), case.rule), None, "{}", case.name);
    }
    assert!(names.len() > 50);
}
