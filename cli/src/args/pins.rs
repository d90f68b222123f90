//! `pin` and `unpin`.

use clap::Args;

/// Keep images from every policy that removes some
///
/// `gc` and `prune` leave a pinned name alone, and `rmi` wants --force for it. A name stays pinned when it is moved to
/// another image. An ID stands for all names of the image.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore pin registry.example.com/pause:3
  layerstore images --format '{{if .Pinned}}{{.Repository}}:{{.Tag}}{{end}}'")]
pub(crate) struct Pin {
    #[arg(value_name = "IMAGE", required = true, help = "Names, IDs, or the first digits of IDs")]
    pub(crate) images: Vec<String>,
}

/// Let policies remove images again that were pinned
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  layerstore unpin registry.example.com/pause:3")]
pub(crate) struct Unpin {
    #[arg(value_name = "IMAGE", required = true, help = "Names, IDs, or the first digits of IDs")]
    pub(crate) images: Vec<String>,
}
