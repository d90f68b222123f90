//! `load`.

use std::path::PathBuf;

use clap::Args;

use super::assignment;

/// Load images from an archive or a directory
///
/// Takes what `docker save`, `podman save`, `skopeo copy` and `buildah push` write: a docker-archive, an
/// OCI archive or an OCI layout directory, also compressed as a whole with gzip or zstd. Layers that the
/// store has already are not read again.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore load -i app.tar
  layerstore load -i ./oci-layout --platform linux/arm64
  docker save app:1 | layerstore load")]
pub(crate) struct Load {
    /// What to load; `-`, the default, is standard input
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub(crate) input: Option<PathBuf>,

    /// Take only this platform of a multi-platform image [default: keep all, unpack this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,

    /// Store the layers but do not unpack them; `mount` does it later
    #[arg(long)]
    pub(crate) no_unpack: bool,

    /// Accept more or less of a layer than the store's settings say, for this time; see `limits`
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) limits: Vec<(String, String)>,
}
