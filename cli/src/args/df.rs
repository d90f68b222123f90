//! `df`.

use std::path::PathBuf;

use clap::Args;

use super::LISTING_FORMAT;

/// Show what takes the disk, and what could be had back
///
/// The first two lines are Docker's: all images, and all containers. The lines below say where the bytes are, and add up to
/// the total, which is what `du` says. With the global option -v each image and container is listed, and what is unknown.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore df
  layerstore df -v
  layerstore df --html usage.html
  layerstore df --format '{{.Type}} {{.Reclaimable}}'")]
pub(crate) struct Df {
    /// Do not look for what the database does not know of: takes milliseconds however many files there are
    #[arg(long)]
    pub(crate) no_scan: bool,

    #[arg(long, help = LISTING_FORMAT)]
    pub(crate) format: Option<String>,

    /// Show it again and again, every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400), conflicts_with = "html")]
    pub(crate) watch: Option<u64>,

    /// Write a page with a map of images and layers to this file, `-` for standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "no_scan"])]
    pub(crate) html: Option<PathBuf>,
}
