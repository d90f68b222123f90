//! The command line: global options, verbs and their arguments. Wrong usage exits 2.
//!
//! Names, short forms and defaults are those of Docker and Podman where these have the verb.

mod bundle;
mod commit;
mod containers;
mod df;
mod filter;
mod gc;
mod import;
mod login;
mod pins;
mod policy_file;
mod prune;
mod prune_filter;
mod quantity;
mod remote;
mod save;
#[cfg(test)]
mod tests;
mod tree_diff;
mod why;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use bundle::{Bundle, VolumeKind};
pub(crate) use commit::Commit;
pub(crate) use containers::{ContainerCommand, Create, Diff, Export, Ps, RemoveContainers, Rename};
pub(crate) use df::Df;
#[cfg(test)]
pub(crate) use filter::parse as parse_filter;
pub(crate) use filter::{ContainerFilter, Filter};
pub(crate) use gc::{Conditions, Gc};
pub(crate) use import::Import;
pub(crate) use login::{Login, Logout};
pub(crate) use pins::{Pin, Unpin};
pub(crate) use policy_file::read as read_policy;
pub(crate) use prune::{ContainerPrune, ImagePrune, Prune, SystemCommand, SystemPrune};
pub(crate) use prune_filter::PruneFilter;
pub(crate) use remote::{
    Manifest, ManifestInspect, ManifestReferrers, Pull, PullPolicy, Push, RegistryArgs, Search,
};
pub(crate) use save::{ArchiveFormat, Save};

pub(crate) use tree_diff::TreeDiff;
pub(crate) use why::Why;

const LISTING_FORMAT: &str = "\
table (columns, the default), 'table TEMPLATE' (columns of your choice), json (one object per line) \
or a Go template such as '{{.ID}}'";

const OBJECT_FORMAT: &str = "json, or a Go template such as '{{.Os}}/{{.Architecture}}'";

const ROOT_HELP: &str =
    "Where the store is [default: /var/lib/layerstore for root, else $XDG_DATA_HOME/layerstore]";

const IMAGE_ARG: &str = "A name, an ID, or the first digits of one";

const AUTHFILE_HELP: &str =
    "Where credentials are [default: Docker's config.json, then containers' auth.json]";

const IMAGE_HELP: &str = "\
IMAGE is a name (nginx, localhost:5000/a/b:tag, name@sha256:…), an image ID, or the first four or more \
digits of one.";

/// Store, look into and mount container images.
#[derive(Debug, Parser)]
#[command(name = "layerstore", version, max_term_width = 100, subcommand_required = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true, after_help = IMAGE_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every verb takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    #[arg(long, global = true, value_name = "DIR", env = "LAYERSTORE_ROOT", hide_env_values = true)]
    #[arg(help = ROOT_HELP)]
    pub(crate) root: Option<PathBuf>,

    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Log what is done; twice for details
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// How log lines look
    #[arg(long, global = true, value_name = "FORM", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: When,

    /// How to show progress: bars on a terminal and lines elsewhere, or always the one given
    #[arg(long, global = true, value_name = "FORM", default_value = "auto")]
    pub(crate) progress: ProgressForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressForm {
    Auto,
    Plain,
    Json,
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Pull(Pull),
    Push(Push),
    Load(Load),
    Import(Import),
    Save(Save),
    Images(Images),
    Inspect(Inspect),
    History(History),
    Tag(Tag),
    Rmi(Remove),
    Pin(Pin),
    Unpin(Unpin),
    Create(Create),
    Ps(Ps),
    Rm(RemoveContainers),
    Rename(Rename),
    Mount(Mount),
    #[command(visible_alias = "unmount")]
    Umount(Umount),
    Diff(Diff),
    Commit(Commit),
    Export(Export),
    Bundle(Bundle),
    Ls(List),
    Cat(Cat),
    TreeDiff(TreeDiff),
    Df(Df),
    Gc(Gc),
    Why(Why),
    Search(Search),
    /// Look at manifests in registries
    #[command(subcommand, arg_required_else_help = true)]
    Manifest(Manifest),
    Login(Login),
    Logout(Logout),
    Limits(Limits),
    Info(Info),
    Version(Version),
    Completions(Completions),
    /// The verbs for images, under the names Docker gives them
    #[command(subcommand, arg_required_else_help = true)]
    Image(ImageCommand),
    /// The verbs for containers, under the names Docker gives them
    #[command(subcommand, arg_required_else_help = true)]
    Container(ContainerCommand),
    /// The verbs for the whole store, under the names Docker gives them
    #[command(subcommand, arg_required_else_help = true)]
    System(SystemCommand),
    // What `image prune` and `container prune` resolve to.
    #[command(skip)]
    ImagePrune(ImagePrune),
    #[command(skip)]
    ContainerPrune(ContainerPrune),
    #[command(skip)]
    SystemPrune(SystemPrune),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    History(History),
    Import(Import),
    Inspect(Inspect),
    Load(Load),
    #[command(visible_alias = "list")]
    Ls(Images),
    Mount(Mount),
    Pin(Pin),
    Prune(ImagePrune),
    Pull(Pull),
    Push(Push),
    #[command(visible_alias = "remove")]
    Rm(Remove),
    Save(Save),
    Tag(Tag),
    #[command(visible_alias = "unmount")]
    Umount(Umount),
    Unpin(Unpin),
}

/// `NAME=VALUE`.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is not of the form NAME=VALUE".to_owned()),
    }
}

impl Command {
    /// The verb itself: `image ls` is `images`.
    pub(crate) fn resolve(self) -> Self {
        match self {
            Self::Image(verb) => match verb {
                ImageCommand::History(args) => Self::History(args),
                ImageCommand::Import(args) => Self::Import(args),
                ImageCommand::Inspect(args) => {
                    Self::Inspect(Inspect { kind: Some(InspectKind::Image), ..args })
                }
                ImageCommand::Load(args) => Self::Load(args),
                ImageCommand::Ls(args) => Self::Images(args),
                ImageCommand::Mount(args) => Self::Mount(args),
                ImageCommand::Pin(args) => Self::Pin(args),
                ImageCommand::Prune(args) => Self::ImagePrune(args),
                ImageCommand::Pull(args) => Self::Pull(args),
                ImageCommand::Push(args) => Self::Push(args),
                ImageCommand::Rm(args) => Self::Rmi(args),
                ImageCommand::Save(args) => Self::Save(args),
                ImageCommand::Tag(args) => Self::Tag(args),
                ImageCommand::Umount(args) => Self::Umount(args),
                ImageCommand::Unpin(args) => Self::Unpin(args),
            },
            Self::Container(verb) => match verb {
                ContainerCommand::Commit(args) => Self::Commit(args),
                ContainerCommand::Create(args) => Self::Create(args),
                ContainerCommand::Diff(args) => Self::Diff(args),
                ContainerCommand::Export(args) => Self::Export(args),
                ContainerCommand::Inspect(args) => {
                    Self::Inspect(Inspect { kind: Some(InspectKind::Container), ..args })
                }
                ContainerCommand::Ls(args) => Self::Ps(args),
                ContainerCommand::Mount(args) => Self::Mount(args),
                ContainerCommand::Prune(args) => Self::ContainerPrune(args),
                ContainerCommand::Rename(args) => Self::Rename(args),
                ContainerCommand::Rm(args) => Self::Rm(args),
                ContainerCommand::Umount(args) => Self::Umount(args),
            },
            Self::System(verb) => match verb {
                SystemCommand::Df(args) => Self::Df(args),
                SystemCommand::Prune(args) => Self::SystemPrune(args),
            },
            verb => verb,
        }
    }
}

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
