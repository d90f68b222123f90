//! What is asked about images and done with their names, and mounting.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::filter::{self, Filter};
use super::{IMAGE_ARG, LISTING_FORMAT, OBJECT_FORMAT};

/// List images
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters: reference=PATTERN (may hold * and ?), dangling=true|false, label=KEY[=VALUE], before=IMAGE,
since=IMAGE, until=TIME (a date, a time or an age such as 24h).

Fields for --format: .ID .Repository .Tag .Digest .CreatedSince .CreatedAt .Size .SharedSize .UniqueSize
.Containers, and beyond Docker's: .PulledAt .LastUsedAt .LastUsedSince .Pinned

Examples:
  layerstore images
  layerstore images 'localhost/*' --digests
  layerstore images --filter dangling=true -q
  layerstore images --format 'table {{.Repository}}:{{.Tag}}\\t{{.Size}}'")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Images {
    /// Only images of this repository, or with this name; may hold * and ?
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) pattern: Option<String>,

    /// Include artifacts that are not images
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Print image IDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Add a column with the digest of the manifest
    #[arg(long)]
    pub(crate) digests: bool,

    /// Print IDs in full
    #[arg(long)]
    pub(crate) no_trunc: bool,

    /// Only images that fit; several must all fit
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter::parse)]
    pub(crate) filter: Vec<Filter>,

    #[arg(long, help = LISTING_FORMAT)]
    pub(crate) format: Option<String>,
}

/// Print everything about containers and images, as JSON
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore inspect app:1
  layerstore inspect --format '{{.Os}}/{{.Architecture}}' app:1
  layerstore inspect --format '{{json .Config.Labels}}' app:1
  layerstore inspect --format '{{range .Config.Env}}{{println .}}{{end}}' app:1")]
pub(crate) struct Inspect {
    #[arg(value_name = "CONTAINER|IMAGE", required = true, help = "Names, IDs, or the first digits of IDs")]
    pub(crate) names: Vec<String>,

    /// Look only for what is of this kind [default: containers, then images]
    #[arg(long = "type", value_name = "KIND")]
    pub(crate) kind: Option<InspectKind>,

    #[arg(short, long, help = OBJECT_FORMAT)]
    pub(crate) format: Option<String>,
}

/// What `inspect` looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InspectKind {
    Container,
    Image,
}

/// Print how an image was built, newest step first
#[derive(Debug, Args)]
#[command(after_long_help = "\
Fields for --format: .ID .CreatedSince .CreatedAt .CreatedBy .Size .Comment

Examples:
  layerstore history app:1
  layerstore history --no-trunc --format '{{.CreatedBy}}' app:1")]
pub(crate) struct History {
    #[arg(help = IMAGE_ARG)]
    pub(crate) image: String,

    /// Print IDs and commands in full
    #[arg(long)]
    pub(crate) no_trunc: bool,

    /// Print image IDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Print sizes and times for people; `--human=false` for programs
    #[arg(
        short = 'H',
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub(crate) human: bool,

    #[arg(long, help = LISTING_FORMAT)]
    pub(crate) format: Option<String>,
}

/// Give an image one more name
///
/// The name is moved if another image has it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  layerstore tag app:1 registry.example.com/team/app:1")]
pub(crate) struct Tag {
    /// An image
    pub(crate) source: String,

    /// The new name
    #[arg(value_name = "TARGET[:TAG]")]
    pub(crate) target: String,
}

/// Remove names, and images that have no other name
///
/// A name is taken away; an image goes with its last name, and with it the layers that no other image
/// has.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore rmi app:1
  layerstore rmi -f 3f2a9c")]
pub(crate) struct Remove {
    #[arg(value_name = "IMAGE", required = true, help = "Names, IDs, or the first digits of IDs")]
    pub(crate) images: Vec<String>,

    /// Remove all names of an ID, pinned ones, and images in use; do not fail if there is no such image
    #[arg(short, long)]
    pub(crate) force: bool,

    /// Without effect: images have no parents that could be left. Docker has this option
    #[arg(long)]
    pub(crate) no_prune: bool,
}

/// Mount a container, or an image read-only, and print where; without one, list what is mounted
///
/// The mount stays until `umount`. Needs root, or a user namespace.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore mount web
  layerstore mount app:1 /mnt
  chroot \"$(layerstore mount app:1)\" sh")]
pub(crate) struct Mount {
    #[arg(value_name = "CONTAINER|IMAGE", help = IMAGE_ARG)]
    pub(crate) image: Option<String>,

    /// An existing directory to mount on [default: one below the store]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Unmount containers and images
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore umount web
  layerstore umount /mnt
  layerstore umount --all")]
pub(crate) struct Umount {
    /// Containers, images, or the directories they are mounted on
    #[arg(value_name = "CONTAINER|IMAGE|DIR", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) targets: Vec<OsString>,

    /// Everything this store has mounted
    #[arg(short, long)]
    pub(crate) all: bool,
}
