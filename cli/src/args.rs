//! The command line: global options, verbs and their arguments. Wrong usage exits 2.
//!
//! Names, short forms and defaults are those of Docker and Podman where these have the verb.

mod bundle;
mod commit;
mod containers;
mod df;
mod files;
mod filter;
mod gc;
mod images;
mod import;
mod load;
mod login;
mod pins;
mod policy_file;
mod prune;
mod prune_filter;
mod quantity;
mod remote;
mod save;
mod system;
#[cfg(test)]
mod tests;
mod tree_diff;
mod why;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub(crate) use bundle::{Bundle, VolumeKind};
pub(crate) use commit::Commit;
pub(crate) use containers::{ContainerCommand, Create, Diff, Export, Ps, RemoveContainers, Rename};
pub(crate) use df::Df;
pub(crate) use files::{Cat, List};
#[cfg(test)]
pub(crate) use filter::parse as parse_filter;
pub(crate) use filter::{ContainerFilter, Filter};
pub(crate) use gc::{Conditions, Gc};
pub(crate) use images::{History, Images, Inspect, InspectKind, Mount, Remove, Tag, Umount};
pub(crate) use import::Import;
pub(crate) use load::Load;
pub(crate) use login::{Login, Logout};
pub(crate) use pins::{Pin, Unpin};
pub(crate) use policy_file::read as read_policy;
pub(crate) use prune::{ContainerPrune, ImagePrune, Prune, SystemCommand, SystemPrune};
pub(crate) use prune_filter::PruneFilter;
pub(crate) use remote::{
    Manifest, ManifestInspect, ManifestReferrers, Pull, PullPolicy, Push, RegistryArgs, Search,
};
pub(crate) use save::{ArchiveFormat, Save};
pub(crate) use system::{Completions, Info, Limits, Version};
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
