//! Commands on stores of 10,000 and of 100,000 layers.

use std::process::Command;
use std::time::{Duration, Instant};

use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::scale::{Planted, Scale, Times, plant, time};

use crate::Options;

/// At 10,000 layers, for the commands that an administrator runs when the disk is full.
const BOUND: Duration = Duration::from_millis(50);
/// How much slower they may be with ten times as many layers.
const FACTOR: u32 = 12;

/// A row of the table.
struct Case {
    name: &'static str,
    bounded: bool,
    /// The arguments of one run; `{name}` is another name of an image in each.
    line: &'static str,
}

const fn case(name: &'static str, line: &'static str) -> Case {
    Case { name, bounded: false, line }
}

const fn bounded(name: &'static str) -> Case {
    Case { name, bounded: true, line: name }
}

/// The last ones change the store.
const CASES: &[Case] = &[
    case("version", "version"),
    bounded("images"),
    bounded("df --no-scan"),
    bounded("gc --dry-run"),
    case("images, as JSON", "images --format json"),
    case("images -q", "images -q"),
    case("df -v --no-scan", "df -v --no-scan"),
    case("df", "df"),
    case("df --html", "df --html -"),
    case("image prune -a --dry-run", "image prune -a --dry-run"),
    case("why a layer", "why {layer}"),
    case("why --freed-by an image", "why --freed-by {first}"),
    case("inspect by name", "inspect {first}"),
    case("inspect by ID", "inspect {id}"),
    case("ps -a", "ps -a"),
    case("create", "create {first}"),
    case("rmi", "rmi {name}"),
];

/// Prints a table and tells which bounds do not hold.
pub(crate) fn run(options: &Options) -> Vec<String> {
    let mut broken = Vec::new();
    let mut large: Vec<(&str, Duration)> = Vec::new();
    let scales: &[Scale] = if options.only_large { &[Scale::LARGE] } else { &[Scale::LARGE, Scale::HUGE] };
    for scale in scales {
        let (_own, sandbox) = crate::sandbox(options.dir.as_deref());
        let start = Instant::now();
        let planted = plant(sandbox.root(), *scale);
        println!("\n{} images, {} layers (made in {:.1?})", scale.images, scale.layers, start.elapsed());
        println!("{:27}{:>9}{:>9}{:>9}{:>9}", "ms", "min", "median", "max", "CPU");
        for case in CASES {
            let Some(times) = measure(&sandbox, &planted, case, options.runs) else {
                println!("{:27}{:>9}", case.name, "-");
                continue;
            };
            let (first, last) = (times.elapsed[0], times.elapsed[times.elapsed.len() - 1]);
            print!("{:27}", case.name);
            for time in [first, times.median(), last, times.median_cpu()] {
                print!("{:9.1}", time.as_secs_f64() * 1000.0);
            }
            let counted = if options.cpu { times.median_cpu() } else { times.median() };
            let before = large.iter().find(|(name, _)| *name == case.name).map(|(_, time)| *time);
            match before {
                Some(before) => println!("{:8.1}x", counted.as_secs_f64() / before.as_secs_f64()),
                None => println!(),
            }
            let most = before.map_or(BOUND, |before| before * FACTOR);
            if case.bounded && counted > most {
                broken.push(format!("{} takes {counted:.1?}, more than {most:.1?}", case.name));
            }
            if before.is_none() {
                large.push((case.name, counted));
            }
        }
    }
    broken
}

/// `None` for a command that this binary does not have.
fn measure(sandbox: &Sandbox, planted: &Planted, case: &Case, runs: usize) -> Option<Times> {
    const WRONG_USAGE: i32 = 2;
    let command = |run: usize| -> Command {
        let word = |word: &str| match word {
            // The first is for commands that leave it there.
            "{name}" => planted.removable[run + 1].clone(),
            "{first}" => planted.removable[0].clone(),
            "{id}" => planted.id.clone(),
            "{layer}" => planted.shared_layer.clone(),
            other => other.to_owned(),
        };
        sandbox.command(case.line.split(' ').map(word))
    };
    // Up to two tries to see whether it is there and to warm up.
    let probe = sandbox.command(command(0).get_args().skip(2).chain([std::ffi::OsStr::new("--help")]));
    let there = { probe }.output().unwrap().status.code() != Some(WRONG_USAGE);
    there.then(|| time((0..=runs).map(command)))
}
