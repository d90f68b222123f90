//! `layerstore login`: what it asks for, does and says, in Docker's words.

use std::io::{self, BufRead, IsTerminal as _, Read, Write as _};

use layerstore::registry::{
    Credential, CredentialError, Credentials as _, Error, Secret, Stored, Unwatched, registry_name,
};

use crate::args::{Login, RegistryArgs};
use crate::context::Context;
use crate::errors::{Exit, Failure};
use crate::format::printable;
use crate::output::print;
use crate::registry;

/// More than any password or token has; a mistaken pipe is not read to its end.
const MAX_PASSWORD: u64 = 1 << 20;

pub(super) fn run(context: &Context, args: Login) -> Result<(), Failure> {
    let name = server_name(args.server.as_deref())?;
    let files = registry::auth_files(args.registry.authfile.as_deref());
    let username = args.username.filter(|username| !username.is_empty());
    let password = match args.password.filter(|password| !password.reveal().is_empty()) {
        Some(password) => {
            context.warn(PASSWORD_ARGUMENT_WARNING);
            Some(password)
        }
        None if args.password_stdin => Some(password_from_stdin()?),
        None => None,
    };
    let mut known = None;
    if username.is_none()
        && password.is_none()
        && let Some(stored) = files.find(&name, "").map_err(failure)?
    {
        context.talk("Authenticating with existing credentials...");
        match check(&args.registry, &name, stored.clone()) {
            Ok(_) => return print(SUCCEEDED),
            Err(failure) if failure.exit != Exit::Unauthorized || !io::stdin().is_terminal() => {
                return Err(failure);
            }
            Err(_) => context.talk("Stored credentials invalid or expired"),
        }
        if let Credential::Basic { username, .. } = stored {
            known = Some(username);
        }
    }
    let (username, password) = match (username, password) {
        (Some(username), Some(password)) => (username, password),
        (username, password) => ask(username, password, known.as_deref())?,
    };
    if username.contains(':') {
        return Err(Failure::usage("the name of a user cannot hold a colon"));
    }
    let credential = Credential::Basic { username, password };
    let credential = match check(&args.registry, &name, credential.clone())? {
        Some(token) => Credential::IdentityToken(token),
        None => credential,
    };
    let stored = files.store(&name, &credential).map_err(failure)?;
    if let Some(warning) = storage_warning(&stored) {
        context.warn(&warning);
    }
    print(SUCCEEDED)
}

/// Asks the registry, and returns the identity token that it may give.
fn check(args: &RegistryArgs, name: &str, credential: Credential) -> Result<Option<Secret>, Failure> {
    let client = registry::login_client(args, name, credential)?;
    Ok(client.log_in(name, &Unwatched).map_err(layerstore::Error::from)?)
}

/// The registry that is meant, by the name that its credentials go by.
pub(super) fn server_name(server: Option<&str>) -> Result<String, Failure> {
    registry_name(server.unwrap_or("docker.io")).map_err(|_| {
        let server = printable(server.unwrap_or_default());
        Failure::usage(format!("`{server}` is not the name of a registry"))
            .hint("give it as in the names of images: registry.example.com, localhost:5000")
    })
}

pub(super) fn failure(error: CredentialError) -> Failure {
    layerstore::Error::from(Error::from(error)).into()
}

/// The password on standard input (`--password-stdin`): all of it, without the line break at its end.
fn password_from_stdin() -> Result<Secret, Failure> {
    password_from(io::stdin().lock())
}

/// Asks on the terminal for a user's name and their password, as far as they are not given.
///
/// `known` is the name that was used the last time: an empty answer means it. The questions go to standard error,
/// where they do not get into the output of a command; the password itself is read without an echo.
fn ask(
    username: Option<String>,
    password: Option<Secret>,
    known: Option<&str>,
) -> Result<(String, Secret), Failure> {
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
    if let Some(password) = password {
        return Ok((username, password));
    }
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
fn storage_warning(stored: &Stored) -> Option<String> {
    let Stored::File(path) = stored else { return None };
    let path = printable(&path.display().to_string());
    Some(format!(
        "WARNING! Your credentials are stored unencrypted in '{path}'.\n\
         Configure a credential helper to remove this warning."
    ))
}

/// What is said on standard error where the password is an argument: other users can see the arguments of a program.
const PASSWORD_ARGUMENT_WARNING: &str =
    "WARNING! Using --password via the CLI is insecure. Use --password-stdin.";

/// What `login` prints at its end.
const SUCCEEDED: &str = "Login Succeeded\n";

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

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
    fn a_registry_is_known_by_each_spelling_and_a_repository_is_none() {
        for (given, name) in [
            (None, "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("Quay.io/"), "quay.io"),
            (Some("http://localhost:5000/v2/"), "localhost:5000"),
        ] {
            assert_eq!(server_name(given).unwrap(), name);
        }
        for wrong in ["", "quay.io/team", "user@quay.io", "a b"] {
            assert_eq!(server_name(Some(wrong)).unwrap_err().exit, Exit::WrongUsage, "{wrong:?}");
        }
    }
}
