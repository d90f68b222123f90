//! `save`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RegistryArgs;

/// The form of an archive, also under the names that Podman has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveFormat {
    /// For all: an OCI layout with Docker's manifest.json. Docker before 23 cannot take layers compressed with zstd
    #[value(alias = "docker-archive")]
    Docker,
    /// An OCI layout. Podman takes one with a single name only
    #[value(alias = "oci-archive")]
    Oci,
}

/// Save images to an archive
///
/// The archive goes to standard output or to a file, which is replaced when all is written, or not at all. Layers stay
/// compressed as they are; those that `gc --evict blobs` took away are fetched again. `docker load`, `podman load`, `ctr image import` and `load` take it. An image given by its
/// ID has no name in the archive.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore save -o app.tar app:1
  layerstore save app:1 app:2 | docker load
  layerstore save --format oci --platform linux/arm64 -o app.tar app:1")]
pub(crate) struct Save {
    #[arg(value_name = "IMAGE", required = true, help = "Names, IDs, or the first digits of IDs")]
    pub(crate) images: Vec<String>,

    /// Where to write; `-`, the default, is standard output
    #[arg(short, long, value_name = "FILE|-")]
    pub(crate) output: Option<PathBuf>,

    /// The form of the archive
    #[arg(long, value_name = "FORM", default_value = "docker")]
    pub(crate) format: ArchiveFormat,

    /// Save this platform of multi-platform images alone
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
