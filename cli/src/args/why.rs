//! `why`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// Say what keeps something in the store, and what would take it away
///
/// Takes a digest (of a blob, a manifest or a config; a diff ID, a chain ID), the first four or more digits of one, an
/// image, a container, the ID of a tree, the key of a snapshot, or a path below the root, from there or from where you are.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore why app:1
  layerstore why sha256:4f5a
  layerstore why overlay2/k3v9x0ab/diff/usr/bin/ssh
  layerstore why --freed-by app:1
  layerstore why --policy /etc/layerstore/gc.toml app:1")]
pub(crate) struct Why {
    /// What it is about
    #[arg(value_name = "DIGEST|IMAGE|CONTAINER|TREE|PATH", required_unless_present = "freed_by")]
    pub(crate) object: Option<OsString>,

    /// Say what removing this image would free, and what would stay because of whom
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["object", "policy"])]
    pub(crate) freed_by: Option<String>,

    /// Say whether and when `gc` with this policy takes it
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,

    /// json, or a Go template such as '{{.Outlook.Is}}'
    #[arg(long)]
    pub(crate) format: Option<String>,
}
