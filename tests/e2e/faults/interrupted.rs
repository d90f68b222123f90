//! What is left of a pull that was interrupted, and what the next one makes of it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use layerstore_testkit::fault_proxy::Fault;
use layerstore_testkit::sandbox::Run;

use super::{HASTY, SIZE, Setup, assert_says};

const HALF: u64 = SIZE as u64 / 2;
/// The stall does not end by itself.
const PATIENT: &str = "stall=60s";

#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_mins(1), "it did not come to that");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A pull that has half of the first layer, all of the second, and waits for more.
fn stalled(setup: &Setup) -> Child {
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Stall { after: HALF });
    let mut command = setup.command("pull", PATIENT, &[&setup.name()]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let second = setup.layer(1).0;
    // The database says when it is the store's; it is there before there is any half of a layer.
    wait_until(|| setup.partial_size(0) == HALF);
    wait_until(|| setup.store.sql("SELECT digest FROM blob").contains(&second));
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn privileged_after_a_kill_only_what_is_missing_is_fetched() {
    let Some(setup) = Setup::new() else { return };
    kill(stalled(&setup));
    assert_eq!(setup.store.ok(["images", "-a", "-q"]), "");
    assert_eq!(setup.heals(), [setup.layer(0).1 - HALF, 0]);
    assert_eq!(setup.asked(0)[0].header("Range"), Some(format!("bytes={HALF}-").as_str()));
}

#[test]
fn privileged_gc_keeps_what_an_interrupted_pull_has_fetched_until_told_otherwise() {
    let Some(setup) = Setup::new() else { return };
    kill(stalled(&setup));
    setup.store.ok(["gc"]);
    assert_eq!(setup.partial_size(0), HALF);
    assert_eq!(setup.heals(), [setup.layer(0).1 - HALF, 0]);

    let Some(setup) = Setup::new() else { return };
    kill(stalled(&setup));
    setup.store.ok(["gc", "--interrupted"]);
    for folder in ["partial", "blobs/sha256", "overlay2", "ingest", "trash"] {
        assert!(setup.store.names(folder).is_empty(), "{folder}: {:?}", setup.store.names(folder));
    }
    assert_eq!(setup.heals(), [setup.layer(0).1, setup.layer(1).1]);
}

#[test]
fn privileged_garbage_at_the_end_of_what_is_kept_is_noticed() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::Cut { after: 1000 });
    setup.fails(8);
    // As a power cut leaves a file: it is longer than what was written.
    let mut file = OpenOptions::new().append(true).open(setup.partial(0)).unwrap();
    file.write_all(&[0; 5000]).unwrap();
    drop(file);
    setup.proxy.heal();
    setup.proxy.traffic().clear();
    let run = setup.pull().success();
    assert_says(&run.stderr, "it is fetched once more");
    setup.assert_here();
    let size = setup.layer(0).1;
    assert_eq!((setup.asked(0).len(), setup.served(0)), (2, size - 8000 + size));
}

#[test]
fn privileged_what_is_kept_and_too_long_is_not_used() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::Cut { after: 1000 });
    setup.fails(8);
    fs::write(setup.partial(0), vec![0; 2 * SIZE]).unwrap();
    assert_eq!(setup.heals()[0], setup.layer(0).1);
}

#[test]
fn privileged_what_is_kept_and_complete_is_not_fetched() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::Cut { after: 1000 });
    setup.fails(8);
    fs::write(setup.partial(0), &setup.image.layers[0].blob).unwrap();
    assert_eq!(setup.heals()[0], 0);
}

#[test]
fn privileged_a_layer_that_is_finished_stays_when_another_fails() {
    for (failing, other) in [(0, 1), (1, 0)] {
        let Some(setup) = Setup::new() else { return };
        // The other one is whole by then.
        setup.proxy.on(setup.of_layer(failing), Fault::Stall { after: 0 });
        setup.fails_with(HASTY, 8);
        assert_eq!(setup.served(other), setup.layer(other).1);
        let fetched = setup.heals();
        assert_eq!((fetched[failing], fetched[other]), (setup.layer(failing).1, 0));
    }
}

#[test]
fn privileged_nothing_is_fetched_twice_wherever_a_pull_was_killed() {
    let Some(setup) = Setup::new() else { return };
    let (mut there, size) = (0, setup.layer(0).1);
    let mut steps = vec![1, 4096, 65_536, 70_000, 0];
    steps.push(size - 1 - steps.iter().sum::<u64>());
    for step in steps {
        setup.proxy.heal();
        setup.proxy.on(setup.of_layer(0), Fault::Stall { after: step });
        let mut command = setup.command("pull", PATIENT, &[&setup.name()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        there += step;
        wait_until(|| setup.partial_size(0) == there);
        kill(child);
    }
    assert_eq!((there, setup.served(0)), (size - 1, size - 1));
    assert_eq!(setup.store.ok(["images", "-a", "-q"]), "");
    assert_eq!(setup.heals()[0], 1);
}

#[test]
fn privileged_who_waits_for_a_pull_that_is_killed_goes_on_in_its_place() {
    let Some(setup) = Setup::new() else { return };
    let first = stalled(&setup);
    let mut command = setup.command("pull", PATIENT, &[&setup.name()]);
    let mut second = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    setup
        .proxy
        .traffic()
        .wait_until(|all| all.iter().filter(|e| e.target.contains("/manifests/")).count() > 1);
    kill(first);
    assert!(second.wait().unwrap().success());
    assert_eq!([setup.served(0), setup.served(1)], [setup.layer(0).1, setup.layer(1).1]);
    setup.store.ok(["gc"]);
    setup.assert_here();
}

#[test]
fn privileged_a_layer_that_cannot_be_had_does_not_waste_the_others() {
    let mut before = 0;
    for (failing, other) in [(0, 1), (1, 0)] {
        let Some(setup) = Setup::new() else { return };
        setup.proxy.on(setup.of_layer(failing), Fault::status(500));
        let mut command = setup.command("pull", HASTY, &["--parallel", "1", &setup.name()]);
        Run::of(&mut command, &[]).failure(8);
        setup.assert_nothing_named();
        let fetched = setup.served(other);
        assert_eq!(setup.heals()[other] + fetched, setup.layer(other).1);
        before += fetched;
    }
    // One of them is asked for first.
    assert!(before > SIZE as u64);
}
