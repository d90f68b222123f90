//! What is about the store as a whole, this machine and this program.

use clap::Args;
use clap_complete::Shell;

use super::{LISTING_FORMAT, OBJECT_FORMAT, assignment};

/// Show or change what the store accepts of a layer, and how it unpacks
///
/// Without arguments prints all settings. A value `default` takes a setting back. They hold for layers that are
/// unpacked from then on, not for those that are already; `load --limit` changes them for one load.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore limits
  layerstore limits output-bytes=20G devices=refuse
  layerstore limits devices=default")]
pub(crate) struct Limits {
    /// Settings to change
    #[arg(value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) changes: Vec<(String, String)>,

    #[arg(long, help = LISTING_FORMAT)]
    pub(crate) format: Option<String>,
}

/// Print facts about the store and this machine
#[derive(Debug, Args)]
pub(crate) struct Info {
    #[arg(short, long, help = OBJECT_FORMAT)]
    pub(crate) format: Option<String>,
}

/// Print the version
#[derive(Debug, Args)]
pub(crate) struct Version {
    #[arg(short, long, help = "json, or a Go template such as '{{.Version}}'")]
    pub(crate) format: Option<String>,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore completions bash > /etc/bash_completion.d/layerstore
  layerstore completions fish > ~/.config/fish/completions/layerstore.fish")]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}
