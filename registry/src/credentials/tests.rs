//! Files as Docker and podman write them, and helpers that are shell scripts.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use layerstore_oci::ErrorKind;
use tempfile::TempDir;

use super::helper::Helper;
use super::*;

/// What must be seen nowhere.
const MARKER: &str = "s3cr3t-marker";

struct Fixture {
    directory: TempDir,
    files: AuthFiles,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("bin")).unwrap();
        let files = AuthFiles {
            files: vec![directory.path().join("config.json"), directory.path().join("second.json")],
            helper_path: Some(directory.path().join("bin").into()),
        };
        Self { directory, files }
    }

    fn with(config: &str) -> Self {
        let fixture = Self::new();
        fs::write(&fixture.files.files[0], config).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.files.files[0]).unwrap()
    }

    /// Another process writes the script: a fork of this one, made by another test while the file is open for
    /// writing, would keep it from being executed.
    fn helper(&self, name: &str, script: &str) {
        let path = self.path(&format!("bin/docker-credential-{name}"));
        let text = format!("#!/bin/sh\ncd '{}'\n{script}\n", self.directory.path().display());
        let status = Command::new("/bin/sh")
            .args(["-c", r#"printf %s "$1" > "$2" && chmod 755 "$2""#, "sh", &text])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn find(&self, host: &str, repository: &str) -> Option<Credential> {
        self.files.find(host, repository).unwrap()
    }

    fn failure(&self) -> CredentialError {
        self.files.find("r.example", "").unwrap_err()
    }
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.to_owned(), password: password.into() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn shown(error: &CredentialError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        write!(text, " {error} {error:?}").unwrap();
        source = error.source();
    }
    text
}

#[test]
fn each_form_of_an_entry_is_read() {
    let fixture = Fixture::with(
        r#"{"auths": {
            "a.example": {"auth": "dXNlcjpwYTpzcw=="},
            "unpadded.example": {"auth": "dXNlcjpwYTpzcw"},
            "b.example": {"username": "u", "password": "p"},
            "c.example": {"auth": "dXNlcjo=", "identitytoken": "id"},
            "d.example": {"registrytoken": "reg", "identitytoken": "id"},
            "empty.example": {}, "null.example": null, "half.example": {"auth": "dXNlcjo="}
        }}"#,
    );
    assert_eq!(fixture.find("a.example", ""), Some(basic("user", "pa:ss")));
    assert_eq!(fixture.find("unpadded.example", ""), Some(basic("user", "pa:ss")));
    assert_eq!(fixture.find("b.example", "x/y"), Some(basic("u", "p")));
    assert_eq!(fixture.find("c.example", ""), Some(Credential::IdentityToken("id".into())));
    assert_eq!(fixture.find("d.example", ""), Some(Credential::RegistryToken("reg".into())));
    for host in ["empty.example", "null.example", "half.example", "other.example"] {
        assert_eq!(fixture.find(host, ""), None, "{host}");
    }
}

#[test]
fn old_spellings_of_a_host_are_found_and_other_hosts_are_not() {
    let fixture = Fixture::with(
        r#"{"auths": {
            "https://a.example:5000/v1/": {"username": "a", "password": "p"},
            "http://b.example": {"username": "b", "password": "p"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"}
        }}"#,
    );
    assert_eq!(fixture.find("a.example:5000", ""), Some(basic("a", "p")));
    assert_eq!(fixture.find("b.example", ""), Some(basic("b", "p")));
    assert_eq!(fixture.find("registry-1.docker.io", "library/nginx"), Some(basic("hub", "p")));
    assert_eq!(fixture.find("docker.io", ""), Some(basic("hub", "p")));
    assert_eq!(fixture.find("a.example", ""), None);
}

#[test]
fn the_longest_namespace_wins() {
    let fixture = Fixture::with(
        r#"{"auths": {
            "quay.io": {"username": "host", "password": "p"},
            "quay.io/team": {"username": "team", "password": "p"},
            "quay.io/team/image": {"username": "image", "password": "p"},
            "docker.io/library": {"username": "library", "password": "p"},
            "docker.io": {"username": "hub", "password": "p"}
        }}"#,
    );
    let user = |host, repository| match fixture.find(host, repository) {
        Some(Credential::Basic { username, .. }) => username,
        other => panic!("{other:?}"),
    };
    assert_eq!(user("quay.io", "team/image"), "image");
    assert_eq!(user("quay.io", "team/other/deep"), "team");
    assert_eq!(user("quay.io", "teams/image"), "host");
    assert_eq!(user("quay.io", ""), "host");
    assert_eq!(user("registry-1.docker.io", "library/nginx"), "library");
    assert_eq!(user("registry-1.docker.io", "someone/nginx"), "hub");
}

#[test]
fn the_first_file_with_an_answer_wins() {
    let fixture = Fixture::with(r#"{"auths": {"a.example": {"username": "first", "password": "p"}}}"#);
    fs::write(
        fixture.path("second.json"),
        r#"{"auths": {"a.example": {"username": "second", "password": "p"},
                      "b.example": {"username": "second", "password": "p"}}}"#,
    )
    .unwrap();
    assert_eq!(fixture.find("a.example", ""), Some(basic("first", "p")));
    assert_eq!(fixture.find("b.example", ""), Some(basic("second", "p")));
}

#[test]
fn missing_and_empty_files_hold_nothing() {
    assert_eq!(Fixture::new().find("r.example", ""), None);
    assert_eq!(Fixture::with("").find("r.example", ""), None);
    assert_eq!(Fixture::with("{\"auths\": null}").find("r.example", ""), None);
}

#[test]
fn a_damaged_file_is_named_and_not_quoted() {
    for config in [
        format!("{{\"auths\": {{\"r.example\": {{\"auth\": \"{MARKER}"),
        MARKER.to_owned(),
        format!("\"{MARKER}\""),
        format!("{{\"auths\": \"{MARKER}\"}}"),
        format!("{{\"auths\": {{\"r.example\": \"{MARKER}\"}}}}"),
        format!("{{\"auths\": {{\"r.example\": {{\"auth\": \"{MARKER}!\"}}}}}}"),
        format!("{{\"auths\": {{\"r.example\": {{\"auth\": [\"{MARKER}\"]}}}}}}"),
        "{\"auths\": {\"r.example\": {\"auth\": \"bm9jb2xvbg==\"}}}".to_owned(),
        format!("{{\"credsStore\": [\"{MARKER}\"]}}"),
        format!("{{\"credHelpers\": {{\"r.example\": [\"{MARKER}\"]}}}}"),
    ] {
        let error = Fixture::with(&config).failure();
        let text = shown(&error);
        assert!(text.contains("config.json"), "{text}");
        assert!(!text.contains(MARKER), "{text}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let fixture = Fixture::new();
    fs::create_dir(&fixture.files.files[0]).unwrap();
    let error = fixture.failure();
    assert!(
        matches!(&error, CredentialError::Read { path, .. } if path.ends_with("config.json")),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn a_helper_is_asked_for_the_key_that_the_file_has() {
    let fixture = Fixture::with(
        r#"{"credHelpers": {"docker.io": "echo", "r.example": "echo"}, "credsStore": "store"}"#,
    );
    fixture.helper("echo", r#"printf '{"Username":"%s","Secret":"p"}' "$(cat)""#);
    fixture.helper("store", r#"printf '{"Username":"<token>","Secret":"%s"}' "$(cat)""#);
    assert_eq!(fixture.find("r.example", "x"), Some(basic("r.example", "p")));
    assert_eq!(fixture.find("registry-1.docker.io", ""), Some(basic("docker.io", "p")));
    assert_eq!(
        fixture.find("other.example:1", ""),
        Some(Credential::IdentityToken("other.example:1".into()))
    );
}

#[test]
fn a_helper_that_has_nothing_is_no_error() {
    let auths = r#""auths": {"r.example": {"username": "file", "password": "p"}}"#;
    let nothing = "echo 'credentials not found in native keychain'; exit 1";

    let fixture = Fixture::with(&format!(r#"{{{auths}, "credHelpers": {{"r.example": "none"}}}}"#));
    fixture.helper("none", nothing);
    assert_eq!(fixture.find("r.example", ""), None, "the helper of the host has the only word");

    let fixture = Fixture::with(&format!(r#"{{{auths}, "credsStore": "none"}}"#));
    fixture.helper("none", nothing);
    assert_eq!(fixture.find("r.example", ""), Some(basic("file", "p")));

    let fixture =
        Fixture::with(&format!(r#"{{{auths}, "credHelpers": {{"r.example": ""}}, "credsStore": "gone"}}"#));
    assert_eq!(fixture.find("r.example", ""), Some(basic("file", "p")), "an empty name means the file");
}

#[test]
fn what_a_failing_helper_says_is_not_repeated() {
    let fixture = Fixture::with(r#"{"credsStore": "bad"}"#);
    for script in [
        format!("echo {MARKER}; exit 1"),
        format!("echo {MARKER}"),
        format!(r#"echo '{{"Username": "u", "Secret": ["{MARKER}"]}}'"#),
        format!("echo {MARKER}; kill -9 $$"),
        format!("yes {MARKER}"),
    ] {
        fixture.helper("bad", &script);
        let error = fixture.failure();
        let text = shown(&error);
        assert!(text.contains("docker-credential-bad") && !text.contains(MARKER), "{text}");
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}

#[test]
fn a_helper_that_is_not_there_is_named() {
    let error = Fixture::with(r#"{"credsStore": "gone"}"#).failure();
    assert!(
        matches!(&error, CredentialError::HelperMissing { program } if program == "docker-credential-gone")
    );
    let error = Helper::find("surely-nowhere", None).unwrap().get("r.example").unwrap_err();
    assert!(matches!(error, CredentialError::HelperMissing { .. }), "{error:?}");
}

#[test]
fn a_name_that_leaves_the_directory_is_no_helper() {
    for name in ["../x", "a/b", "a b", "a\\u0000b"] {
        let fixture = Fixture::with(&format!(r#"{{"credsStore": "{name}"}}"#));
        assert!(matches!(fixture.failure(), CredentialError::HelperName { .. }), "{name}");
    }
}

#[test]
fn a_helper_that_does_not_end_is_ended() {
    let fixture = Fixture::new();
    // The second one closes its output and lingers; the third leaves a child with its output behind.
    for (name, script) in
        [("a", "exec sleep 600"), ("b", "exec >&-; exec sleep 600"), ("c", "sleep 5 & wait")]
    {
        fixture.helper(name, script);
        let helper = Helper::find(name, fixture.files.helper_path.as_deref()).unwrap();
        let start = Instant::now();
        let error = helper.with_limit(Duration::from_millis(100)).get("r.example").unwrap_err();
        assert!(matches!(error, CredentialError::HelperTimeout { action: "get", .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(4));
    }
}

#[test]
fn a_helper_that_reads_nothing_harms_nobody() {
    let fixture = Fixture::with(r#"{"credsStore": "deaf"}"#);
    fixture.helper("deaf", "exec <&-; exit 0");
    let long = basic("u", &"x".repeat(1 << 20));
    assert_eq!(fixture.files.store("r.example", &long).unwrap(), Stored::Helper("deaf".to_owned()));
}

#[test]
fn store_makes_a_private_file_that_find_reads() {
    let mut fixture = Fixture::new();
    let path = fixture.path("new/deep/auth.json");
    fixture.files.files = vec![path.clone()];
    let stored = fixture.files.store("R.example:5000", &basic("user", "p:w")).unwrap();
    assert_eq!(stored, Stored::File(path.clone()));
    assert!(stored.is_plain_text());
    assert_eq!(
        (mode(&path), mode(path.parent().unwrap()), mode(&fixture.path("new"))),
        (0o600, 0o700, 0o700)
    );
    assert_eq!(
        fixture.text(),
        "{\n\t\"auths\": {\n\t\t\"r.example:5000\": {\n\t\t\t\"auth\": \"dXNlcjpwOnc=\"\n\t\t}\n\t}\n}\n"
    );
    assert_eq!(fixture.find("r.example:5000", ""), Some(basic("user", "p:w")));
    for token in [Credential::IdentityToken("id".into()), Credential::RegistryToken("reg".into())] {
        fixture.files.store("r.example:5000", &token).unwrap();
        assert_eq!(fixture.find("r.example:5000", ""), Some(token));
    }
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file stays");
}

#[test]
fn store_keeps_what_it_does_not_know_and_its_order() {
    let fixture = Fixture::with(
        r#"{"zeta": 1, "auths": {"z.example": {"auth": "eDp5"}, "docker.io": {"auth": "eDp5"},
            "https://index.docker.io/v1/": {"email": "e", "auth": "eDp5", "password": "old"},
            "docker.io/team": {"auth": "eDp5"}}, "HttpHeaders": {"b": "1", "a": "2"}}"#,
    );
    fs::set_permissions(&fixture.files.files[0], fs::Permissions::from_mode(0o644)).unwrap();
    fixture.files.store("docker.io", &basic("u", "p")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&fixture.text()).unwrap();
    assert_eq!(
        json.to_string(),
        r#"{"zeta":1,"auths":{"z.example":{"auth":"eDp5"},"https://index.docker.io/v1/":{"email":"e","auth":"dTpw"},"docker.io/team":{"auth":"eDp5"}},"HttpHeaders":{"b":"1","a":"2"}}"#
    );
    assert_eq!(mode(&fixture.files.files[0]), 0o600);
}

#[test]
fn store_writes_through_a_link() {
    for existing in [true, false] {
        let fixture = Fixture::new();
        let target = fixture.path("dotfiles.json");
        if existing {
            fs::write(&target, "{\"a\": 1}").unwrap();
        }
        symlink("hop.json", &fixture.files.files[0]).unwrap();
        symlink(&target, fixture.path("hop.json")).unwrap();
        fixture.files.store("r.example", &basic("u", "p")).unwrap();
        assert!(fs::symlink_metadata(&fixture.files.files[0]).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("dTpw"));
        assert_eq!(mode(&target), 0o600);
    }
}

#[test]
fn links_in_a_circle_are_an_error() {
    let fixture = Fixture::new();
    symlink("config.json", &fixture.files.files[0]).unwrap();
    let error = fixture.files.store("r.example", &basic("u", "p")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn store_leaves_a_damaged_file_alone() {
    let fixture = Fixture::with("{\"auths\": 5}");
    assert!(fixture.files.store("r.example", &basic("u", "p")).is_err());
    assert_eq!(fixture.text(), "{\"auths\": 5}");
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let fixture = Fixture::with(r#"{"credHelpers": {"h.example": "any"}}"#);
    fixture.helper("any", "exit 0");
    let before = fixture.text();
    let refused = |result| matches!(result, Err(CredentialError::Unstorable { .. }));
    assert!(refused(fixture.files.store("r.example", &basic("a:b", "p"))));
    assert!(refused(fixture.files.store("h.example", &Credential::RegistryToken("t".into()))));
    assert_eq!(fixture.text(), before);
    assert!(matches!(
        AuthFiles::default().store("r.example", &basic("u", "p")),
        Err(CredentialError::NoFile)
    ));
}

#[test]
fn store_goes_to_the_helper_and_takes_the_plain_text_away() {
    let fixture = Fixture::with(
        r#"{"credsStore": "keep", "auths": {"https://r.example": {"auth": "eDp5"}, "b.example": {"auth": "eDp5"}}}"#,
    );
    fixture.helper("keep", r#"echo "$@" > args; cat > kept"#);
    let stored = fixture.files.store("r.example", &Credential::IdentityToken(MARKER.into())).unwrap();
    assert_eq!(stored, Stored::Helper("keep".to_owned()));
    assert!(!stored.is_plain_text());
    assert_eq!(fs::read_to_string(fixture.path("args")).unwrap(), "store\n", "no secret is an argument");
    assert_eq!(
        fs::read_to_string(fixture.path("kept")).unwrap(),
        format!(r#"{{"ServerURL":"r.example","Username":"<token>","Secret":"{MARKER}"}}"#)
    );
    let json: serde_json::Value = serde_json::from_str(&fixture.text()).unwrap();
    assert_eq!(json["auths"].to_string(), r#"{"b.example":{"auth":"eDp5"},"r.example":{}}"#);
}

#[test]
fn erase_takes_every_spelling_and_leaves_namespaces() {
    let fixture = Fixture::with(
        r#"{"auths": {"r.example": {"auth": "eDp5"}, "https://r.example/v1/": {"auth": "eDp5"},
            "r.example/team": {"auth": "eDp5"}, "b.example": {"auth": "eDp5"}}}"#,
    );
    assert_eq!(fixture.files.erase("r.example").unwrap(), [Stored::File(fixture.files.files[0].clone())]);
    let json: serde_json::Value = serde_json::from_str(&fixture.text()).unwrap();
    assert_eq!(
        json.to_string(),
        r#"{"auths":{"r.example/team":{"auth":"eDp5"},"b.example":{"auth":"eDp5"}}}"#
    );
    assert_eq!(fixture.files.erase("r.example").unwrap(), []);
    assert_eq!(Fixture::new().files.erase("r.example").unwrap(), []);
}

#[test]
fn erase_asks_the_helper_and_the_file() {
    let fixture = Fixture::with(
        r#"{"credHelpers": {"r.example": "keep"}, "auths": {"r.example": {"auth": "eDp5"}, "s.example": {}}}"#,
    );
    fixture.helper(
        "keep",
        r#"echo "$1 $(cat)" >> log; [ "$1" = erase ] || echo '{"Username":"u","Secret":"s"}'"#,
    );
    assert_eq!(
        fixture.files.erase("r.example").unwrap(),
        [Stored::Helper("keep".to_owned()), Stored::File(fixture.files.files[0].clone())]
    );
    assert_eq!(fs::read_to_string(fixture.path("log")).unwrap(), "get r.example\nerase r.example\n");
    assert_eq!(fixture.files.erase("s.example").unwrap(), [], "an empty entry is no login");
}

#[test]
fn erase_clears_the_file_even_if_the_helper_fails() {
    let fixture = Fixture::with(r#"{"credsStore": "bad", "auths": {"r.example": {"auth": "eDp5"}}}"#);
    fixture.helper("bad", "exit 3");
    assert!(matches!(fixture.files.erase("r.example"), Err(CredentialError::HelperFailed { .. })));
    assert!(!fixture.text().contains("eDp5"));
}

#[test]
fn debug_shows_no_secret() {
    for credential in [
        basic("user", MARKER),
        Credential::IdentityToken(MARKER.into()),
        Credential::RegistryToken(MARKER.into()),
    ] {
        assert!(!format!("{credential:?}").contains(MARKER));
    }
}
