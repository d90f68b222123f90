//! What `login` and `logout` ask for and say, in Docker's words.
#![allow(dead_code)]

use std::io::{self, BufRead, IsTerminal as _, Read, Write as _};

use layerstore_registry::{Secret, Stored};

use crate::errors::Failure;
use crate::format::printable;

/// More than any password or token has; a mistaken pipe is not read to its end.
const MAX_PASSWORD: u64 = 1 << 20;

/// The password on standard input (`--password-stdin`): all of it, without the line break at its end.
pub(crate) fn password_from_stdin() -> Result<Secret, Failure> {
    password_from(io::stdin().lock())
}

/// Asks for a user's name, if none is given, and for their password, on the terminal.
///
/// `known` is the name that was used the last time: an empty answer means it. The questions go to standard error,
/// where they do not get into the output of a command; the password itself is read without an echo.
pub(crate) fn ask(username: Option<String>, known: Option<&str>) -> Result<(String, Secret), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("cannot ask for a user and password: standard input is not a terminal")
            .hint("give the user with --username, and the password with --password-stdin"));
    }
    let username = match username {
        Some(username) => username,
        None => username_from(io::stdin().lock(), known, |question| {
            // If nobody sees the question, there is nobody to complain to.
            drop(io::stderr().write_all(question.as_bytes()));
        })?,
    };
    let configuration = rpassword::ConfigBuilder::new().output_writer(io::stderr()).build();
    let password = rpassword::prompt_password_with_config("Password: ", configuration)
        .map_err(|error| Failure::usage(format!("cannot read the password: {error}")))?;
    if password.is_empty() {
        return Err(Failure::usage("password required"));
    }
    Ok((username, password.into()))
}

fn password_from(input: impl Read) -> Result<Secret, Failure> {
    let mut bytes = Vec::new();
    input
        .take(MAX_PASSWORD + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("cannot read the password from standard input: {error}")))?;
    if bytes.len() as u64 > MAX_PASSWORD {
        return Err(Failure::usage("what is on standard input is too long for a password"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage("the password on standard input is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(Failure::usage("password required: standard input is empty"));
    }
    Ok(text.into())
}

fn username_from(
    mut input: impl BufRead,
    known: Option<&str>,
    show: impl Fn(&str),
) -> Result<String, Failure> {
    show(&match known {
        Some(known) => format!("Username ({}): ", printable(known)),
        None => "Username: ".to_owned(),
    });
    let mut line = String::new();
    input
        .by_ref()
        .take(MAX_PASSWORD)
        .read_line(&mut line)
        .map_err(|error| Failure::usage(format!("cannot read the user's name: {error}")))?;
    match (line.trim(), known) {
        ("", Some(known)) => Ok(known.to_owned()),
        ("", None) => Err(Failure::usage("username required")),
        (name, _) => Ok(name.to_owned()),
    }
}

/// What is said on standard error before [`SUCCEEDED`], if there is something to warn of.
pub(crate) fn storage_warning(stored: &Stored) -> Option<String> {
    let Stored::File(path) = stored else { return None };
    let path = printable(&path.display().to_string());
    Some(format!(
        "WARNING! Your credentials are stored unencrypted in '{path}'.\n\
         Configure a credential helper to remove this warning."
    ))
}

/// What is said on standard error where the password is an argument: other users can see the arguments of a program.
pub(crate) const PASSWORD_ARGUMENT_WARNING: &str =
    "WARNING! Using --password via the CLI is insecure. Use --password-stdin.";

/// What `login` prints at its end.
pub(crate) const SUCCEEDED: &str = "Login Succeeded\n";

/// What `logout` prints; `places` is where there were credentials.
pub(crate) fn logged_out(registry: &str, places: &[Stored]) -> String {
    let registry = printable(registry);
    if places.is_empty() {
        format!("Not logged in to {registry}\n")
    } else {
        format!("Removing login credentials for {registry}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::errors::Exit;

    #[test]
    fn one_line_break_is_taken_from_a_password() {
        for (input, password) in [
            ("p", "p"),
            ("p\n", "p"),
            ("p\r\n", "p"),
            ("p\n\n", "p\n"),
            (" p w \n", " p w "),
            ("a\nb", "a\nb"),
        ] {
            assert_eq!(password_from(input.as_bytes()).unwrap().reveal(), password, "{input:?}");
        }
    }

    #[test]
    fn no_password_is_wrong_usage() {
        for input in [&b""[..], b"\n", b"\r\n", b"\xff\n"] {
            assert_eq!(password_from(input).unwrap_err().exit, Exit::WrongUsage, "{input:?}");
        }
        let failure = password_from(io::repeat(b'x')).unwrap_err();
        assert!(failure.sentence.contains("too long") && !failure.sentence.contains("xx"));
    }

    #[test]
    fn an_empty_name_means_the_one_of_the_last_time() {
        let asked = RefCell::new(String::new());
        let name = |input: &str, known| {
            username_from(input.as_bytes(), known, |text| asked.borrow_mut().push_str(text))
        };
        assert_eq!(name("user\nrest", None).unwrap(), "user");
        assert_eq!(name("\n", Some("old")).unwrap(), "old");
        assert_eq!(name("new\n", Some("old")).unwrap(), "new");
        assert_eq!(name("", None).unwrap_err().sentence, "username required");
        assert_eq!(asked.into_inner(), "Username: Username (old): Username (old): Username: ");
    }

    #[test]
    fn a_file_is_warned_of_and_a_helper_is_not() {
        let warning = storage_warning(&Stored::File("/root/.docker/config.json".into())).unwrap();
        assert!(warning.starts_with(
            "WARNING! Your credentials are stored unencrypted in '/root/.docker/config.json'.\n"
        ));
        assert_eq!(storage_warning(&Stored::Helper("pass".to_owned())), None);
    }

    #[test]
    fn logout_says_whether_there_was_a_login() {
        assert_eq!(logged_out("r.example", &[]), "Not logged in to r.example\n");
        let places = [Stored::Helper("pass".to_owned())];
        assert_eq!(logged_out("r.example", &places), "Removing login credentials for r.example\n");
    }
}
