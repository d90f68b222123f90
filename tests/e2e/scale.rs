//! Lists and dry runs on a store of 1,000 images and 10,000 layers. The long form is `benches/scale/run`.

use std::time::Duration;

use layerstore_testkit::disk::Disk;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::scale::{Scale, plant, time};

/// What they may take in all, with the start of the process.
const BOUND: Duration = Duration::from_millis(50);
/// Machines on which tests run may be half as fast as those that people have, and share their processors with other tests,
/// which makes each of two threads slower; `benches/scale/run` holds a quiet machine to the bound itself.
const SLACK: u32 = 4;

#[test]
fn lists_and_dry_runs_take_milliseconds_with_ten_thousand_layers() {
    if !require::root() {
        return;
    }
    // Twenty thousand directories are made in no time where none is written to a disk.
    let disk = Disk::tmpfs(512);
    let Some(sandbox) = Sandbox::at(&disk.path().join("store")) else { return };
    sandbox.ok(["images"]);
    let planted = plant(sandbox.root(), Scale::LARGE);
    let names = sandbox.ok(["images", "-q"]).lines().count();
    assert_eq!(sandbox.sql("SELECT count(*) FROM reference"), [names.to_string()]);
    assert_eq!(sandbox.ok(["ps", "-aq"]).lines().count(), Scale::LARGE.containers);
    assert!(sandbox.ok(["gc", "--dry-run"]).lines().count() > 100, "some images are garbage");
    for line in ["images", "gc --dry-run", "df --no-scan"] {
        const WRONG_USAGE: i32 = 2;
        if sandbox.run(line.split(' ').chain(["--help"])).code == WRONG_USAGE {
            // Not every binary has it yet.
            continue;
        }
        // Other tests run at the same time: what they take from this one's share of the processors is not counted.
        let times = time((0..6).map(|_| sandbox.command(line.split(' '))));
        let least = times.cpu[0];
        assert!(least < BOUND * SLACK, "`{line}` computes for {least:.1?}");
    }
    // What was planted is a store like any other.
    sandbox.ok(["create", "--name", "new", &planted.removable[0]]);
    sandbox.ok(["rmi", &planted.removable[1]]);
    sandbox.ok(["rm", "new"]);
}
