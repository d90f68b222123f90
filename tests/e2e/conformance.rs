//! Every case of `fixtures/layers/cases.toml`, through real overlay mounts: alone and in a stack of three, layers
//! unpacked one by one and side by side, as root and in a user namespace.

use std::collections::BTreeMap;
use std::path::PathBuf;

use layerstore_testkit::cases::{self, Look};
use layerstore_testkit::image::Layout;
use layerstore_testkit::sandbox::{Run, Sandbox};
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

    /// What is seen of an image, and the message if it is refused.
    fn look(&self, look: &Look) -> Result<(Vec<String>, Snapshot), String> {
        let name = "localhost/case:1";
        let archive = self.store.write("case.tar", &Layout::of(name, &look.image).archive());
        let run = self.run(&["load", "--limit", self.jobs, "-i", archive.to_str().unwrap()]);
        if run.code != 0 {
            let refusal = run.stderr.clone();
            assert!(matches!(run.code, 1 | 5), "{run}");
            assert_eq!(self.store.names_of_trees(), 0, "a refused layer left something: {refusal}");
            return Err(refusal);
        }
        let at = self.store.dir().join("mounted");
        std::fs::create_dir_all(&at).unwrap();
        self.run(&["mount", name, at.to_str().unwrap()]).success();
        let seen: PathBuf = self.namespace.as_ref().map_or(at.clone(), |namespace| namespace.outside(&at));
        let (lines, snapshot) = (cases::describe(&seen), Snapshot::of(&seen));
        let listed = self.run(&["ls", "-R", "-a", name]).success().stdout;
        let listed: std::collections::BTreeSet<_> =
            listed.lines().map(|line| line.trim_end_matches('/')).collect();
        let mounted: std::collections::BTreeSet<_> = snapshot
            .entries
            .keys()
            .filter(|path| !path.is_empty())
            .map(|p| str::from_utf8(p).unwrap())
            .collect();
        assert_eq!(listed, mounted, "`ls` (left) and the mount (right)");
        self.run(&["umount", at.to_str().unwrap()]).success();
        self.run(&["rmi", name]).success();
        Ok((lines, snapshot))
    }
}

#[test]
fn privileged_every_case_comes_out_as_its_rule_says() {
    let Some(ways) = Way::all() else { return };
    let mut wrong = Vec::new();
    for case in cases::all() {
        for (kind, look) in [("alone", &case.alone), ("stacked", &case.stacked)] {
            let mut first: Option<Snapshot> = None;
            for way in &ways {
                let place = format!("{} ({kind}, {})", case.name, way.name);
                match (way.look(look), &look.expected) {
                    (Ok((seen, snapshot)), Ok(expected)) => {
                        if seen != *expected {
                            wrong.push(format!("{place}: {seen:?} instead of {expected:?}; {}", case.rule));
                        }
                        let first = first.get_or_insert_with(|| snapshot.clone());
                        wrong
                            .extend(first.compare(&snapshot).iter().map(|found| format!("{place}: {found}")));
                    }
                    (Err(message), Err(expected)) if message.contains(expected.as_str()) => {}
                    (found, expected) => {
                        let found = found.map(|(seen, _)| seen);
                        wrong.push(format!("{place}: {found:?} instead of {expected:?}; {}", case.rule));
                    }
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
