//! What others notice while a collection unlinks a million files.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::scale::plant_garbage;

use crate::Options;

/// What 99 of 100 `create` may take while files are unlinked.
const CREATE: Duration = Duration::from_millis(50);
/// How much longer a load may take meanwhile.
const LOAD: f64 = 1.25;
/// How often each is measured at least, alone and while files are unlinked.
const CREATES: usize = 200;
const LOADS: usize = 7;
/// Files a tree: what a layer of a large image has.
const FILES_A_TREE: usize = 50_000;

/// Prints what was measured and tells which bounds do not hold.
pub(crate) fn run(options: &Options) -> Vec<String> {
    let Some(images) = require::images() else { return Vec::new() };
    let image = images.join("app.docker.tar");
    let (_own, sandbox) = crate::sandbox(options.dir.as_deref());
    refuse_small(sandbox.root(), options.files);
    sandbox.load(&image);
    let name = sandbox.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]).trim_end().to_owned();
    let mut broken = Vec::new();

    let mut alone: Vec<Duration> = (0..CREATES).map(|_| create(&sandbox, &name)).collect();
    report("create, alone", &mut alone);
    let mut during = meanwhile(&sandbox, options.files, CREATES, || create(&sandbox, &name));
    let slowest = report("create, while unlinking", &mut during);
    if slowest > CREATE {
        broken.push(format!("the 99th percentile of `create` is {slowest:.1?}, more than {CREATE:.1?}"));
    }

    let mut alone: Vec<Duration> = (0..LOADS).map(|_| load(&sandbox, &name, &image)).collect();
    report("load, alone", &mut alone);
    let mut during = meanwhile(&sandbox, options.files, LOADS, || load(&sandbox, &name, &image));
    report("load, while unlinking", &mut during);
    let median = |times: &[Duration]| times[times.len() / 2].as_secs_f64();
    let slower = median(&during) / median(&alone);
    println!("a load takes {slower:.2} times as long while files are unlinked");
    if slower > LOAD {
        broken.push(format!("a load takes {slower:.2} times as long, more than {LOAD}"));
    }
    broken
}

/// Measures `work` while `gc` takes garbage away, which is made again until there are `wanted` measurements.
fn meanwhile(
    sandbox: &Sandbox,
    files: usize,
    wanted: usize,
    mut work: impl FnMut() -> Duration,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while times.len() < wanted {
        let start = Instant::now();
        plant_garbage(sandbox.root(), files.div_ceil(FILES_A_TREE), FILES_A_TREE.min(files));
        // What making them left to be written is not what is measured.
        rustix::fs::syncfs(File::open(sandbox.root()).unwrap()).unwrap();
        println!("\n{files} files, made in {:.1?}", start.elapsed());
        let before = times.len();
        let start = Instant::now();
        let mut gc = sandbox.command(["gc"]).stdout(Stdio::null()).spawn().unwrap();
        loop {
            let took = work();
            // What went on when nothing was unlinked any more does not count.
            if gc.try_wait().unwrap().is_some() {
                break;
            }
            times.push(took);
        }
        assert!(gc.wait().unwrap().success(), "gc fails");
        println!("gc took less than {:.1?}", start.elapsed());
        assert!(times.len() > before, "gc is over before anything could be measured: give it more --files");
    }
    times
}

/// How long `create` takes; what it made is removed.
fn create(sandbox: &Sandbox, image: &str) -> Duration {
    let took = once(sandbox.command(["create", "--name", "one", image]));
    sandbox.ok(["rm", "one"]);
    took
}

/// How long `load` takes for an image that is not there.
fn load(sandbox: &Sandbox, name: &str, archive: &Path) -> Duration {
    sandbox.ok(["rmi", name]);
    let mut command = sandbox.command(["load", "-q", "-i"]);
    command.arg(archive).stderr(Stdio::null());
    once(command)
}

fn once(mut command: Command) -> Duration {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).status().unwrap();
    let took = start.elapsed();
    assert!(status.success(), "{command:?} fails");
    took
}

/// Prints the distribution; returns the 99th percentile.
fn report(what: &str, times: &mut [Duration]) -> Duration {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!(
        "{what:25}{:5} runs: p50 {:.1?}, p99 {:.1?}, most {:.1?}",
        times.len(),
        at(50),
        at(99),
        times[times.len() - 1]
    );
    at(99)
}

/// A disk that this would fill is left alone.
fn refuse_small(root: &Path, files: usize) {
    let space = rustix::fs::statvfs(root).unwrap();
    let inodes = files as u64 * 5 / 4;
    let bytes = files as u64 * 1024 + (2 << 30);
    assert!(
        space.f_favail > inodes && space.f_bavail * space.f_frsize > bytes,
        "{} has no room for {files} files",
        root.display()
    );
    let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(root).output().unwrap().stdout;
    println!("{}: {}", root.display(), String::from_utf8_lossy(&kind).trim_end());
}
