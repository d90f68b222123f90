//! What reads single files of an image.

use std::ffi::OsString;

use clap::Args;

use super::IMAGE_ARG;

/// List files in an image, without mounting it
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore ls app:1 /etc
  layerstore ls -lR app:1 /usr/lib
  layerstore ls --format json app:1 /bin")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct List {
    #[arg(help = IMAGE_ARG)]
    pub(crate) image: String,

    /// A path in the image
    #[arg(default_value = "/")]
    pub(crate) path: OsString,

    /// Also print mode, owner, size and time
    #[arg(short, long)]
    pub(crate) long: bool,

    /// Include names that begin with a dot
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Show a directory itself, not what is in it
    #[arg(short, long)]
    pub(crate) directory: bool,

    /// Also list all directories below
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,

    #[arg(long, help = "json (one object per line) or a Go template such as '{{.Name}}'")]
    pub(crate) format: Option<String>,
}

/// Print files of an image, without mounting it
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  layerstore cat app:1 /etc/os-release")]
pub(crate) struct Cat {
    #[arg(help = IMAGE_ARG)]
    pub(crate) image: String,

    /// Paths in the image; symbolic links are followed inside it
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<OsString>,
}
