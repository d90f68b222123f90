//! `login` and `logout`.

use std::path::PathBuf;

use clap::Args;
use layerstore::registry::Secret;

use super::{AUTHFILE_HELP, RegistryArgs};

const SERVER_HELP: &str = "The registry, as in the names of images [default: docker.io]";

/// Log in to a registry
///
/// Makes sure that the registry accepts the user and the password, and keeps them for later: with the credential
/// helper that the file names, else in the file itself. Without options, tries what is kept first.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore login
  layerstore login registry.example.com
  layerstore login -u user --password-stdin localhost:5000 < password")]
pub(crate) struct Login {
    #[arg(help = SERVER_HELP)]
    pub(crate) server: Option<String>,

    /// The user [default: asks]
    #[arg(short, long)]
    pub(crate) username: Option<String>,

    /// The password [default: asks]; other users of this machine can see it
    #[arg(short, long, conflicts_with = "password_stdin")]
    pub(crate) password: Option<Secret>,

    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Forget the user and the password for a registry
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore logout
  layerstore logout registry.example.com")]
pub(crate) struct Logout {
    #[arg(help = SERVER_HELP)]
    pub(crate) server: Option<String>,

    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true, help = AUTHFILE_HELP)]
    pub(crate) authfile: Option<PathBuf>,
}
