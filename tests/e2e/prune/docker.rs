//! The same scenario in a real Docker.

use layerstore_testkit::docker::Archive;
use layerstore_testkit::docker_engine::DockerEngine;
use layerstore_testkit::sandbox::{Run, Sandbox};

use super::image;

/// Lines in an order of their own: Docker prunes images in that of a hash table. Sizes are left out, since Docker counts
/// lengths and not blocks, and no blobs.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().map(|line| line.split(": 0B").next().unwrap().to_owned()).collect();
    for line in &mut lines {
        if line.starts_with("Total reclaimed space: ") {
            line.truncate("Total reclaimed space".len());
        }
    }
    lines.sort();
    lines
}

#[test]
fn privileged_prune_tells_what_docker_tells() {
    let Some(store) = Sandbox::new() else { return };
    let docker = DockerEngine::start();
    let archive = Archive::new()
        .image(&["localhost/used:1"], &image("used"))
        .image(&["localhost/lost:1"], &image("lost"))
        .image(&["localhost/two:1", "localhost/names:1"], &image("two"));
    let path = store.write("images.tar", &archive.legacy());
    docker.load(&path);
    store.load(&path);
    let both = |args: &[&str], input: &str| {
        let theirs = Run::of(&mut docker.command(args), input.as_bytes()).success();
        let ours = store.run_with(args, input.as_bytes()).success();
        assert_eq!(lines(&ours.stdout), lines(&theirs.stdout), "{args:?}");
        ours.stdout
    };
    // Without networks Docker makes no container that could run, but it makes one.
    docker.ok(["create", "--network", "none", "localhost/used:1", "sh"]);
    let container = store.ok(["create", "localhost/used:1"]);
    // Of an image with a container Docker takes all names but one away; here it keeps all.
    for args in [&["tag", "localhost/used:1", "localhost/lost:1"][..], &["rmi", "localhost/lost:1"]] {
        docker.ok(args);
        store.ok(args);
    }
    for answer in ["n\n", "\n"] {
        both(&["image", "prune"], answer);
        both(&["image", "prune", "-a"], answer);
        both(&["container", "prune"], answer);
    }
    assert!(both(&["image", "prune"], "y\n").contains("deleted: "));
    both(&["image", "prune", "-f"], "");
    assert!(both(&["image", "prune", "-af"], "").contains("untagged: localhost/names:1\n"));
    // Their IDs differ.
    let theirs = docker.ok(["container", "prune", "-f"]);
    let ours = store.ok(["container", "prune", "-f"]);
    let shape = |text: &str| text.lines().map(str::len).take(3).collect::<Vec<_>>();
    assert_eq!(shape(&ours), shape(&theirs), "{ours}\n{theirs}");
    assert!(ours.contains(container.trim()));
    both(&["image", "prune", "-af"], "");
    both(&["system", "prune", "-af"], "");
}
