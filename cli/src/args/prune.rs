//! `image prune`, `container prune` and `system prune`.

use clap::{Args, Subcommand};

use super::Df;
use super::prune_filter::{PruneFilter, parse_prune};

/// Delete images that nobody uses
///
/// Without -a those that have no name. What else nothing needs goes as well, as with `gc`. Pinned images stay.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters: until=TIME (built before a date, a time or an age such as 24h), label=KEY[=VALUE], label!=KEY[=VALUE].

Examples:
  layerstore image prune
  layerstore image prune -a --filter until=720h")]
pub(crate) struct ImagePrune {
    /// All images that no container was made from, not only those without a name
    #[arg(short, long)]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) common: Prune,
}

/// Delete containers that are not mounted, and what was written to them
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters: until=TIME (created before a date, a time or an age such as 24h), label=KEY[=VALUE], label!=KEY[=VALUE].

Example:
  layerstore container prune --filter until=24h")]
pub(crate) struct ContainerPrune {
    #[command(flatten)]
    pub(crate) common: Prune,
}

/// Delete containers that are not mounted, images that nobody uses then, and what else nothing needs
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE], of containers as well as of images.

Examples:
  layerstore system prune
  layerstore system prune -af")]
pub(crate) struct SystemPrune {
    /// All images that no container was made from, not only those without a name
    #[arg(short, long)]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) common: Prune,

    /// Docker has this option; there are no volumes here
    #[arg(long, hide = true)]
    pub(crate) volumes: bool,
}

/// Options of all of these.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,

    /// Only what fits; several must all fit
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_prune)]
    pub(crate) filter: Vec<PruneFilter>,

    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The verbs for the whole store, under the names Docker gives them.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    Df(Df),
    Prune(SystemPrune),
}
