//! GNU tar reads what we write.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use layerstore_testkit::require;
use proptest::prelude::*;

use super::build::{Menu, build, choices};
use super::*;

fn gnu_tar(stream: &[u8], arguments: &[&str], directory: &Path) -> Output {
    let mut command = Command::new("tar");
    command.args(arguments).args(["--file=-", "-C"]).arg(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(stream).unwrap());
        child.wait_with_output().unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn privileged_gnu_tar_extracts_the_same_tree(choices in choices()) {
        if !require::root() {
            return Ok(());
        }
        let upper = Upper::new();
        build(upper.0.path(), &choices, Menu::Plain);
        let layer = upper.diff();
        let target = tempfile::tempdir().unwrap();
        let arguments = ["--extract", "--preserve-permissions", "--numeric-owner", "--same-owner", "--xattrs",
            "--xattrs-include=*", "--warning=no-timestamp", "--delay-directory-restore", "--absolute-names"];
        let output = gnu_tar(&layer.stream, &arguments, target.path());
        prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found = Snapshot::of(upper.0.path()).compare(&Snapshot::of(target.path()));
        prop_assert!(found.is_empty(), "{}", found.iter().map(|d| format!("{d}\n")).collect::<String>());
    }
}

#[test]
fn gnu_tar_lists_every_entry() {
    let upper = Upper::new();
    upper.dir("d").file("d/f", "data").link("d/f", "d/g").symlink("s", "d/f").fifo("p");
    upper.xattr("d/f", "user.k", "v").xattr("d", own("opaque"), "y").file([b'n'; 200], "long");
    build::sparse(&upper.path("holes"), &[true, false, true, false], 77);
    build::set_mtime(&upper.path("s"), (-5, 5));
    let layer = upper.diff();
    let output = gnu_tar(&layer.stream, &["-tv", "--xattrs"], upper.0.path());
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().filter(|line| !line.starts_with("  ")).count(), 9, "{lines}");
    assert!(lines.contains(" d/g link to d/f\n") && lines.contains(" 262221 "), "{lines}");
}
