//! What is written in one container: the others do not have it, `diff` names it, `commit` and `export` give it.

use layerstore_testkit::tree::Snapshot;

use super::{APP, archive, change, commit, diff, mount, umount, untar, with_app};

/// All of [`change`], as `diff` tells it.
const CHANGES: &[&str] = &[
    "C /app",
    "A /app/inside",
    "C /etc",
    "D /etc/cron.daily",
    "C /etc/gai.conf",
    "C /etc/hosts",
    "D /etc/issue",
    "A /etc/issue.moved",
    "D /etc/issue.net",
    "C /etc/localtime",
    "C /etc/logrotate.d",
    "D /etc/logrotate.d/alternatives",
    "C /etc/logrotate.d/apt",
    "D /etc/logrotate.d/dpkg",
    "C /etc/mime.types",
    "C /etc/motd",
    "C /etc/opt",
    "C /etc/rmt",
    "C /etc/shells",
    "C /etc/skel",
    "D /etc/skel/.bash_logout",
    "D /etc/skel/.bashrc",
    "D /etc/skel/.profile",
    "A /etc/skel/again",
    "C /etc/terminfo",
    "C /etc/timezone",
    "C /opt",
    "A /opt/after",
    "A /opt/after/inside",
    "A /opt/fifo",
    "A /opt/latin-1 \u{fffd}",
    "A /opt/new",
    "A /opt/new-too",
    "A /opt/null",
    "A /opt/ping",
    "A /opt/profile",
    "A /opt/symlink",
    "C /srv",
    "A /srv/daily",
    "A /srv/daily/apt-compat",
    "A /srv/daily/dpkg",
    "C /usr",
    "C /usr/bin",
    "C /usr/bin/perl",
    "C /usr/share",
    "D /usr/share/doc",
    "A /usr/share/mime-was-here",
];

#[test]
fn privileged_a_changed_container_of_a_real_image() {
    let Some(store) = with_app() else { return };
    let mounted = store.mount(APP);
    let image = Snapshot::of(&mounted);
    for name in ["one", "two"] {
        store.ok(["create", "--name", name, APP]);
    }
    let (one, two) = (mount(&store, "one"), mount(&store, "two"));
    image.assert_same(&Snapshot::of(&one));
    change(&one);
    let changed = Snapshot::of(&one);

    // The other, and the image, have nothing of it.
    image.assert_same(&Snapshot::of(&two));
    image.assert_same(&Snapshot::of(&mounted));
    assert_eq!(diff(&store, "two"), [""; 0]);
    assert_eq!(diff(&store, "one"), CHANGES);

    let exported = archive(&store, "one");
    let digest = layerstore_testkit::digest(&exported);
    let out = store.dir().join("out");
    untar(&exported, &out);
    drop(exported);
    changed.assert_same(&Snapshot::of(&out));
    umount(&store, "one");
    umount(&store, "two");
    assert_eq!(diff(&store, "one"), CHANGES, "not mounted");
    assert_eq!(layerstore_testkit::digest(&archive(&store, "one")), digest, "not mounted");

    commit(&store, "one", "localhost/committed:1");
    changed.assert_same(&Snapshot::of(store.mount("localhost/committed:1")));
    changed.assert_same(&Snapshot::of(mount(&store, "one")));
    assert_eq!(diff(&store, "one"), CHANGES, "the container stays as it is");
    let out = store.command(["tree-diff", APP, "localhost/committed:1"]).output().unwrap();
    let told = String::from_utf8_lossy(&out.stdout);
    let own = CHANGES.iter().filter(|line| !["C /usr", "C /usr/bin"].contains(line));
    assert!(told.lines().eq(own.copied()), "all but directories that are as they were: {told}");

    // A container of the new image begins where the old one is.
    store.ok(["create", "--name", "three", "localhost/committed:1"]);
    changed.assert_same(&Snapshot::of(mount(&store, "three")));
    assert_eq!(diff(&store, "three"), [""; 0]);
    store.assert_no_leftovers();
    store.assert_nothing_to_collect();
}
