//! `gc`, and the conditions that it shares with policy files.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use layerstore::Evict;
use layerstore::oci::NamePattern;
use serde::Deserialize;

use super::policy_file;
use super::prune_filter::{PruneFilter, parse_prune, protect};
use super::quantity::{percent, size, span};

/// Delete what nothing needs, and images that nobody uses
///
/// Without options only that goes which no image, container, mount or running command needs, and what was left behind.
/// With options unused images go as well: all conditions must hold. What a container or anybody else uses, and what is
/// pinned, stays in any case. -v says what stays and why.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters: until=TIME (built before a date, a time or an age such as 720h), label=KEY[=VALUE],
label!=KEY[=VALUE], reference=PATTERN (may hold * and ?; one of several must fit),
dangling=true|false.

Fields for --format: .Type .Name .ID .Size .Freed .Reason .Since (sizes in bytes on disk)

Examples:
  layerstore gc --dry-run
  layerstore gc --all
  layerstore gc --unused-for 30d --keep-last 3 --protect 'registry.example.com/base/*'
  layerstore gc --free 10GB
  layerstore gc --high 85% --low 70%
  layerstore gc --policy /etc/layerstore/gc.toml")]
pub(crate) struct Gc {
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) conditions: Conditions,

    /// Take the conditions from this TOML file; options come before what it says
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,

    /// json (one object per line), 'table TEMPLATE' or a Go template such as '{{.Name}}'; sentences otherwise
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// What goes: options of `gc`, and under the same names keys of a policy file.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Conditions {
    /// Images that have no name
    #[arg(long)]
    pub(crate) dangling: bool,

    /// All images that nobody uses; this is also what the options below are about
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Only images that fit; several must all fit
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_prune)]
    #[serde(deserialize_with = "policy_file::filters")]
    pub(crate) filter: Vec<PruneFilter>,

    /// Only images that were not used for this long (30d, 2w, 12h): mounted, pulled, named, or made something from
    #[arg(long, value_name = "SPAN", value_parser = span)]
    #[serde(deserialize_with = "policy_file::span")]
    pub(crate) unused_for: Option<i64>,

    /// Keep the newest names of each repository, so many
    #[arg(long, value_name = "NUMBER", value_parser = keep_last)]
    #[serde(deserialize_with = "policy_file::keep_last")]
    pub(crate) keep_last: Option<usize>,

    /// Keep names that fit, whatever else holds; may be given several times
    #[arg(long, value_name = "PATTERN", value_parser = protect)]
    #[serde(deserialize_with = "policy_file::protect")]
    pub(crate) protect: Vec<NamePattern>,

    /// Take only what is needed for images to take no more than this, first what was not used for the longest time
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(deserialize_with = "policy_file::size")]
    pub(crate) keep_storage: Option<u64>,

    /// Take only what is needed to free this much
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(deserialize_with = "policy_file::size")]
    pub(crate) free: Option<u64>,

    /// Take images only if so much of the filesystem is in use
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    #[serde(deserialize_with = "policy_file::percent")]
    pub(crate) high: Option<u8>,

    /// With --high: take only what is needed to come down to this
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    #[serde(deserialize_with = "policy_file::percent")]
    pub(crate) low: Option<u8>,

    /// Keep the images, and drop their unpacked trees, or the blobs that a registry has as well; both come back when
    /// they are needed
    #[arg(long, value_name = "WHAT")]
    pub(crate) evict: Option<Half>,

    /// Also delete what interrupted pulls have fetched; it is kept for a day otherwise
    #[arg(long)]
    pub(crate) interrupted: bool,
}

/// The half of an image that is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Half {
    Trees,
    Blobs,
}

impl From<Half> for Evict {
    fn from(half: Half) -> Self {
        match half {
            Half::Trees => Self::Trees,
            Half::Blobs => Self::Blobs,
        }
    }
}

/// How many names of each repository stay.
pub(crate) fn keep_last(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("`{text}` is not a number above 0"))
}
