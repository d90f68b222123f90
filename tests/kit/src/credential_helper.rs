//! A program that keeps logins as Docker's credential helpers do, in plain files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A helper in a directory that is to stand in `PATH`.
#[derive(Clone, Debug)]
pub struct CredentialHelper {
    program: PathBuf,
    kept: PathBuf,
    calls: PathBuf,
}

/// `store`, `get`, `erase` and `list` of the protocol. A login is a file that is called after its server, with `%` in
/// the place of each slash. Nothing but the shell is needed.
const SCRIPT: &str = r#"#!/bin/sh
kept='KEPT'
echo "$1" >>'CALLS'
file() { printf '%s/' "$kept"; printf %s "$1" | sed 's,/,%,g'; }
field() { sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p' "$2"; }
case "$1" in
  store)
    cat >"$kept/.new"
    mv "$kept/.new" "$(file "$(field ServerURL "$kept/.new")")" ;;
  get)
    cat "$(file "$(cat)")" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
  erase)
    rm "$(file "$(cat)")" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
  list)
    printf '{'
    separator=
    for login in "$kept"/*; do
      [ -f "$login" ] || continue
      printf '%s"%s":"%s"' "$separator" "$(field ServerURL "$login")" "$(field Username "$login")"
      separator=,
    done
    echo '}' ;;
  *) echo "unknown command $1"; exit 1 ;;
esac
"#;

impl CredentialHelper {
    /// Writes `docker-credential-NAME` into `dir`.
    pub fn write(dir: &Path, name: &str) -> Self {
        let helper = Self {
            program: dir.join(format!("docker-credential-{name}")),
            kept: dir.join(format!("{name}-logins")),
            calls: dir.join(format!("{name}-calls")),
        };
        fs::create_dir_all(&helper.kept).unwrap();
        fs::write(&helper.calls, "").unwrap();
        let script = SCRIPT.replace("KEPT", helper.kept.to_str().unwrap());
        let script = script.replace("CALLS", helper.calls.to_str().unwrap());
        fs::write(&helper.program, script).unwrap();
        fs::set_permissions(&helper.program, fs::Permissions::from_mode(0o755)).unwrap();
        helper
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Keeps a login, as the program would when asked to. None of the words may have a quote or a backslash.
    pub fn keep(&self, server: &str, user: &str, secret: &str) {
        let login = serde_json::json!({"ServerURL": server, "Username": user, "Secret": secret});
        fs::write(self.file(server), login.to_string()).unwrap();
    }

    /// The user and the secret that are kept for a server.
    pub fn kept(&self, server: &str) -> Option<(String, String)> {
        let text = fs::read(self.file(server)).ok()?;
        let login: serde_json::Value = serde_json::from_slice(&text).unwrap();
        Some((login["Username"].as_str()?.to_owned(), login["Secret"].as_str()?.to_owned()))
    }

    /// The commands that the program was called with, in order.
    pub fn calls(&self) -> Vec<String> {
        fs::read_to_string(&self.calls).unwrap().lines().map(str::to_owned).collect()
    }

    fn file(&self, server: &str) -> PathBuf {
        self.kept.join(server.replace('/', "%"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn call(helper: &CredentialHelper, command: &str, input: &str) -> (bool, String) {
        let mut child = Command::new(helper.program())
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        (out.status.success(), String::from_utf8(out.stdout).unwrap())
    }

    #[test]
    fn a_login_is_kept_until_it_is_erased() {
        let dir = tempfile::tempdir().unwrap();
        let helper = CredentialHelper::write(dir.path(), "test");
        let server = "https://index.docker.io/v1/";
        let login = format!(r#"{{"ServerURL":"{server}","Username":"anna","Secret":"s3"}}"#);
        assert!(call(&helper, "store", &login).0);
        assert_eq!(helper.kept(server), Some(("anna".to_owned(), "s3".to_owned())));
        helper.keep("localhost:1", "ben", "t4");
        assert_eq!(call(&helper, "get", server), (true, login));
        let list = call(&helper, "list", "").1;
        assert_eq!(list, format!("{{\"{server}\":\"anna\",\"localhost:1\":\"ben\"}}\n"));
        assert!(call(&helper, "erase", server).0);
        let missing = (false, "credentials not found in native keychain\n".to_owned());
        assert_eq!(call(&helper, "get", server), missing);
        assert_eq!(helper.calls(), ["store", "get", "list", "erase", "get"]);
    }
}
