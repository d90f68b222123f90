//! The verbs for containers.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use layerstore::{IdMap, IdRange, Settings};

use super::remote::size;
use super::{Commit, ContainerPrune, Inspect, LISTING_FORMAT, Mount, Umount, assignment, filter};

const CONTAINER_ARG: &str = "A name, an ID, or the first digits of one";

/// The verbs for containers, under the names Docker gives them.
#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    Commit(Commit),
    Create(Create),
    Diff(Diff),
    Export(Export),
    Inspect(Inspect),
    #[command(visible_aliases = ["list", "ps"])]
    Ls(Ps),
    Mount(Mount),
    Prune(ContainerPrune),
    Rename(Rename),
    #[command(visible_alias = "remove")]
    Rm(RemoveContainers),
    #[command(visible_alias = "unmount")]
    Umount(Umount),
}

/// Make a container from an image: a root filesystem to write to
///
/// No program is run; `mount` shows the files, and `bundle` makes what runc and crun run.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore create app:1
  layerstore create --name web app:1 && layerstore mount web
  layerstore create --storage-opt size=10G,inodes=100k app:1")]
pub(crate) struct Create {
    #[arg(help = super::IMAGE_ARG)]
    pub(crate) image: String,

    /// A name, which no other container has [default: one is made up]
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// A label; may be given several times
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) storage: Storage,
}

/// How a container's files are kept and shown.
#[derive(Debug, Args)]
pub(crate) struct Storage {
    /// The most that the container may write, as size=BYTES (with k, M, G, T) and inodes=NUMBER, if the filesystem has
    /// project quotas
    #[arg(long = "storage-opt", value_name = "NAME=VALUE", value_delimiter = ',', value_parser = assignment)]
    pub(crate) limits: Vec<(String, String)>,

    /// Do not sync what the container writes, even where it asks for it: faster, and lost if the machine goes down
    #[arg(long)]
    pub(crate) volatile: bool,

    /// User IDs in the container and what they are outside; may be given several times
    #[arg(long, alias = "uid-map", value_name = "CONTAINER:HOST:COUNT")]
    pub(crate) uidmap: Vec<IdRange>,

    /// The same for group IDs [default: that of the user IDs]
    #[arg(long, alias = "gid-map", value_name = "CONTAINER:HOST:COUNT")]
    pub(crate) gidmap: Vec<IdRange>,
}

impl Storage {
    /// What the options say; a sentence where they say nothing that makes sense.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings {
            volatile: self.volatile,
            uid_map: self.uidmap.clone(),
            gid_map: self.gidmap.clone(),
            ..Settings::default()
        };
        // As in podman, one of the two stands for both.
        if settings.uid_map.is_empty() {
            settings.uid_map.clone_from(&settings.gid_map);
        } else if settings.gid_map.is_empty() {
            settings.gid_map.clone_from(&settings.uid_map);
        }
        if !settings.uid_map.is_empty() {
            let checked = IdMap::new(settings.uid_map.clone(), settings.gid_map.clone());
            checked.map_err(|error| error.to_string())?;
        }
        for (name, value) in &self.limits {
            let wrong = |reason: String| format!("`--storage-opt {name}={value}`: {reason}");
            let limit = size(value).map_err(wrong)?;
            match name.as_str() {
                "size" => settings.quota_bytes = Some(limit),
                "inodes" => settings.quota_inodes = Some(limit),
                _ => return Err(wrong("there are `size` and `inodes`".to_owned())),
            }
        }
        Ok(settings)
    }
}

/// List containers that are mounted, or all
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters: id=PREFIX, name=PART, ancestor=IMAGE, status=created|mounted, label=KEY[=VALUE].

Fields for --format: .ID .Image .ImageID .Command .CreatedAt .RunningFor .Status .State .Names .Size .Labels .Mounts

Examples:
  layerstore ps -a
  layerstore ps -aq --filter ancestor=app:1
  layerstore ps -a --size --format 'table {{.Names}}\\t{{.Size}}'")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Ps {
    /// Include containers that are not mounted
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Print container IDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Print IDs and commands in full
    #[arg(long)]
    pub(crate) no_trunc: bool,

    /// Count what each has written
    #[arg(short, long)]
    pub(crate) size: bool,

    /// Only containers that fit; several must all fit
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter::parse_container)]
    pub(crate) filter: Vec<filter::ContainerFilter>,

    #[arg(long, help = LISTING_FORMAT)]
    pub(crate) format: Option<String>,
}

/// Remove containers, and what was written to them
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore rm web
  layerstore rm -f $(layerstore ps -aq)")]
pub(crate) struct RemoveContainers {
    #[arg(value_name = "CONTAINER", required = true, help = "Names, IDs, or the first digits of IDs")]
    pub(crate) containers: Vec<String>,

    /// Unmount them first; do not fail if there is no such container
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Give a container another name
#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[arg(help = CONTAINER_ARG)]
    pub(crate) container: String,

    /// A name that no other container has
    #[arg(value_name = "NEW_NAME")]
    pub(crate) name: String,
}

/// List what was changed in a container
///
/// `A` is a file or directory that was added, `C` one that was changed, `D` one that was deleted.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[arg(help = CONTAINER_ARG)]
    pub(crate) container: String,

    #[arg(long, help = "json (one object per line) or a Go template such as '{{.Kind}} {{.Path}}'")]
    pub(crate) format: Option<String>,
}

/// Write the files of a container as a tar archive
///
/// The container need not be mounted. The same files give the same bytes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore export -o root.tar web
  layerstore export web | tar t")]
pub(crate) struct Export {
    #[arg(help = CONTAINER_ARG)]
    pub(crate) container: String,

    /// Where to write it [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `KEY` or `KEY=VALUE`.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() { Err("it has no name".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}
