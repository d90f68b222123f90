//! `layerstore logout`.

use std::path::{Path, PathBuf};

use layerstore::registry::{AuthFiles, Credentials as _, Stored};

use super::login::{failure, server_name};
use crate::args::Logout;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::printable;
use crate::output::print;
use crate::registry;

pub(super) fn run(context: &Context, args: &Logout) -> Result<(), Failure> {
    let name = server_name(args.server.as_deref())?;
    let files = registry::auth_files(args.authfile.as_deref());
    let places = files.erase(&name).map_err(failure)?;
    print(logged_out(&name, &places))?;
    for file in others(&files, &name) {
        let name = printable(&name);
        context.note(&format!("{} still has credentials for {name}", file.display()));
    }
    Ok(())
}

/// In Docker's words; `places` is where there were credentials.
fn logged_out(registry: &str, places: &[Stored]) -> String {
    let registry = printable(registry);
    if places.is_empty() {
        format!("Not logged in to {registry}\n")
    } else {
        format!("Removing login credentials for {registry}\n")
    }
}

/// The files of other tools that have credentials for a registry. One that cannot be read is not ours to tell about.
fn others<'a>(files: &'a AuthFiles, name: &str) -> Vec<&'a Path> {
    let has = |file: &&PathBuf| {
        let alone = AuthFiles { files: vec![(*file).clone()], helper_path: files.helper_path.clone() };
        alone.find(name, "").is_ok_and(|found| found.is_some())
    };
    files.files.iter().skip(1).filter(has).map(PathBuf::as_path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_whether_there_was_a_login() {
        assert_eq!(logged_out("r.example", &[]), "Not logged in to r.example\n");
        let places = [Stored::Helper("pass".to_owned())];
        assert_eq!(logged_out("r.example", &places), "Removing login credentials for r.example\n");
    }
}
