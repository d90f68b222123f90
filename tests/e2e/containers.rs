//! Containers: made, changed, looked at, made into images and archives, and removed.

mod at_once;
mod bundles;
mod changes;
mod elsewhere;
mod errors;
mod gone;
mod hostile;
mod in_use;
mod killed;
mod listing;
mod peers;
mod privilege;
mod running;
mod same_bytes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::{Run, Sandbox};
use rustix::fs::XattrFlags;

use crate::{small_layer, varied_image};

const APP: &str = "localhost/app:1";
const SMALL: &str = "localhost/small:1";

/// A store with the real image `app`, or nothing where such tests are left out.
#[track_caller]
fn with_app() -> Option<Sandbox> {
    let (store, images) = (Sandbox::new()?, require::images()?);
    store.load(images.join("app.oci.tar"));
    Some(store)
}

/// A store with an image of two layers, which are loaded in no time.
#[track_caller]
fn with_small() -> Option<Sandbox> {
    let store = Sandbox::new()?;
    let layout = Layout::of(SMALL, &Image::new([small_layer("base"), small_layer("top")]));
    store.load_bytes(&layout.image("localhost/varied:1", &varied_image()).archive());
    Some(store)
}

/// Mounts a container at the store's own place, which is returned.
#[track_caller]
fn mount(store: &Sandbox, container: &str) -> PathBuf {
    PathBuf::from(store.ok(["mount", container]).trim_end())
}

/// Unmounts a container.
#[track_caller]
fn umount(store: &Sandbox, container: &str) {
    layerstore_testkit::sandbox::until_free(|| store.run(["umount", container])).success();
}

/// `diff`, a line each; names are bytes.
#[track_caller]
fn diff(store: &Sandbox, container: &str) -> Vec<String> {
    let out = store.command(["diff", container]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

/// Commits with the clock of the test.
#[track_caller]
fn commit(store: &Sandbox, container: &str, name: &str) -> String {
    let mut command = store.command(["commit", container, name]);
    let run = Run::of(command.env("SOURCE_DATE_EPOCH", "2000000000"), &[]).success();
    run.stdout.trim_end().to_owned()
}

/// What `export` writes: nothing of it goes to a disk.
#[track_caller]
fn archive(store: &Sandbox, container: &str) -> Vec<u8> {
    let out = store.command(["export", container]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Unpacks an archive with GNU tar, which must have nothing to say.
#[track_caller]
fn untar(archive: &[u8], to: &Path) {
    fs::create_dir(to).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf-", "-C"]).arg(to);
    assert_eq!(Run::of(&mut tar, archive).success().stderr, "");
}

/// What must stay as it was when a command on containers fails.
#[track_caller]
fn state(store: &Sandbox) -> Vec<String> {
    let mut state = store.state();
    state.extend(store.names("mnt").into_iter().map(|name| format!("mnt/{name}")));
    for table in ["container", "mount", "lease"] {
        state.push(format!("{table} {:?}", store.sql(&format!("SELECT count(*) FROM {table}"))));
    }
    state.extend(
        store
            .ok(["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Status}} {{.Mounts}}"])
            .lines()
            .map(str::to_owned),
    );
    state
}

/// A command fails, says `sentence`, and changes nothing. Returns its hints.
#[track_caller]
fn refused(store: &Sandbox, args: &[&str], code: i32, sentence: &str) -> String {
    let before = state(store);
    let run = store.run(args);
    let hints: Vec<_> =
        run.stderr.lines().filter_map(|l| l.strip_prefix("hint: ").map(str::to_owned)).collect();
    let found = run.failure(code);
    assert!(found.contains(sentence), "{args:?} says: {found}");
    assert_eq!(state(store), before, "{args:?}");
    hints.join("\n")
}

/// Does to a file tree of `app` everything that can be done to one.
fn change(root: &Path) {
    const SCRIPT: &str = r#"
    set -e
    echo new > opt/new
    ln opt/new opt/new-too
    ln -s new opt/symlink
    mkdir -m 1777 opt/before
    echo inside > opt/before/inside
    mv opt/before opt/after
    mkfifo -m 600 opt/fifo
    mknod -m 666 opt/null c 1 3
    cp bin/true opt/ping
    setcap cap_net_raw+ep opt/ping
    echo brief > opt/brief
    rm opt/brief
    : > "$(printf 'opt/latin-1 \366')"

    echo more >> etc/motd
    rm etc/issue.net
    mv etc/issue etc/issue.moved
    mv etc/cron.daily srv/daily
    chmod 600 etc/hosts
    chown 7:8 etc/shells
    chmod 4711 usr/bin/perl
    setfattr -n user.note -v hello etc/mime.types
    setfattr -n user.note -v hello etc/opt
    setfattr -n trusted.note -v hello etc/rmt -h
    ln etc/profile opt/profile
    touch -d '2001-02-03 04:05:06.789 UTC' etc/gai.conf
    ln -sfn elsewhere etc/localtime

    rm -r etc/terminfo
    echo file > etc/terminfo
    rm -r etc/skel
    echo file > etc/skel
    rm etc/skel
    mkdir etc/skel
    echo again > etc/skel/again
    rm app
    mkdir app
    echo inside > app/inside
    rm etc/timezone
    mkdir etc/timezone
    rmdir etc/timezone
    echo file > etc/timezone
    rm -r etc/logrotate.d
    mkdir etc/logrotate.d
    echo apt > etc/logrotate.d/apt
    rm -r usr/share/doc
    : > usr/share/mime-was-here
    chmod 644 etc/motd"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT]).current_dir(root).env("LC_ALL", "C");
    Run::of(&mut shell, &[]).success();
    // A value with bytes that no text has.
    rustix::fs::setxattr(root.join("opt/new"), "user.bytes", b"\0\xff\n=", XattrFlags::empty()).unwrap();
}
