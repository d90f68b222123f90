//! Policies in files, and what makes no sense.

use super::{load, planned, store};

const WRONG_USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;

#[test]
fn privileged_a_file_says_what_options_say() {
    let Some(store) = store() else { return };
    let file = |text: &str| store.write("gc.toml", text.as_bytes()).display().to_string();
    let path = file("unused-for = \"15d\"\nkeep-last = 3\n");
    assert_eq!(planned(&store, &["--policy", &path]), ["localhost/a:1"]);
    assert_eq!(planned(&store, &["--policy", &path, "--keep-last", "2"]), ["localhost/a:1", "localhost/a:2"]);
    assert_eq!(planned(&store, &["--policy", &path, "--unused-for", "100d"]), [""; 0]);
    let path = file("all = true\nprotect = [\"localhost/a:1\"]\nfilter = [\"label=kind\"]\n");
    assert_eq!(planned(&store, &["--policy", &path]), ["localhost/a:2"]);
    assert_eq!(planned(&store, &["--policy", &path, "--protect", "*/a:2"]), [""; 0]);
    assert_eq!(planned(&store, &["--policy", &path, "--dangling", "--filter", "label!=x"]), ["<none>"]);
    let path = file("free = \"1B\"\n");
    assert_eq!(planned(&store, &["--policy", &path]), ["localhost/a:1"]);
    assert_eq!(planned(&store, &["--policy", &path, "--keep-storage", "0"]).len(), 5);
    // Only who names the file gets what it says.
    assert_eq!(planned(&store, &[]), [""; 0]);
}

#[test]
fn privileged_a_wrong_file_is_named_with_its_line_and_key() {
    let Some(store) = store() else { return };
    let before = store.state();
    for (text, part) in [
        ("all = true\nunused-for = \"soon\"\n", "gc.toml, line 2, unused-for: `soon` is not a span of time"),
        ("al = true\n", "gc.toml, line 1, al: unknown field `al`"),
        ("high = \"85%\"\n", "--high needs --low"),
        ("high = \"70%\"\nlow = \"85%\"\n", "--low 85% is above --high 70%"),
        ("all = true\nprotect = [\"t/[a\"]\n", "gc.toml, line 2, protect: no name fits `t/[a`"),
    ] {
        let path = store.write("gc.toml", text.as_bytes());
        let sentence = store.run(["gc", "--policy", path.to_str().unwrap()]).failure(WRONG_USAGE);
        assert!(sentence.contains(part), "{sentence}");
    }
    let path = store.write("gc.toml", b"all = true # \xff\n");
    let sentence = store.run(["gc", "--policy", path.to_str().unwrap()]).failure(WRONG_USAGE);
    assert!(sentence.contains("gc.toml"), "{sentence}");
    let sentence = store.run(["gc", "--policy", "/no/such/file"]).failure(NOT_FOUND);
    assert!(sentence.contains("/no/such/file"), "{sentence}");
    for args in [
        ["--free", "much"],
        ["--unused-for", "soon"],
        ["--high", "200%"],
        ["--filter", "size=1"],
        ["--keep-last", "0"],
        ["--protect", ""],
        ["--protect", "t/[a"],
        ["--protect", "a name"],
        ["--protect", "a\\"],
        ["--protect", "sha256:0123"],
        ["--filter", "reference=t/[a"],
    ] {
        assert_eq!(store.run(["gc", "--all", args[0], args[1]]).code, WRONG_USAGE, "{args:?}");
    }
    store.run(["gc", "--free", "1GB", "--keep-storage", "1GB"]).failure(WRONG_USAGE);
    assert_eq!(store.state(), before);
}

#[test]
fn privileged_the_example_policy_works() {
    let Some(store) = store() else { return };
    load(&store, "registry.example.com/base/os:1", &super::image(20, 1000), 100);
    let example = layerstore_testkit::require::workspace().join("contrib/gc.toml");
    let example = example.to_str().unwrap();
    store.ok(["gc", "--policy", example, "--dry-run"]);
    let gone = planned(&store, &["--policy", example, "--high", "0%", "--low", "0%"]);
    assert_eq!(gone.len(), 5, "{gone:?}");
}
