//! Verbs that speak to registries.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{AUTHFILE_HELP, LISTING_FORMAT, assignment};

/// How to reach registries, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registry options")]
pub(crate) struct RegistryArgs {
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true, help = AUTHFILE_HELP)]
    pub(crate) authfile: Option<PathBuf>,

    /// Directories with containerd's hosts.toml or Docker's certificates for each registry
    /// [default: /etc/containerd/certs.d, /etc/docker/certs.d]
    #[arg(long, value_name = "DIR", env = "LAYERSTORE_HOSTS_DIR", value_delimiter = ':')]
    pub(crate) hosts_dir: Vec<PathBuf>,

    /// Take any certificate, and plain HTTP where there is no TLS
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Use plain HTTP
    #[arg(long)]
    pub(crate) plain_http: bool,

    // For tests, which have no time for the waits that a registry in trouble deserves.
    #[arg(long, hide = true, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = assignment)]
    pub(crate) registry_retry: Vec<(String, String)>,
}

/// When a pull asks the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Always
    Always,
    /// Only if the image is not here
    Missing,
    /// Always, but use the image that is here if the registry does not answer
    Newer,
}

/// Download images from a registry
///
/// Layers that are here are not fetched again, and an interrupted download goes on where it was.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore pull postgres:16
  layerstore pull registry.example.com/team/app@sha256:…
  layerstore pull --platform linux/arm64 nginx
  layerstore pull -a localhost:5000/app")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Pull {
    #[arg(value_name = "IMAGE", required = true, help = "Names of images; without a tag, `latest`")]
    pub(crate) images: Vec<String>,

    /// Download every tag of the repositories
    #[arg(short, long)]
    pub(crate) all_tags: bool,

    /// Take this platform of a multi-platform image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,

    /// Download all platforms, and unpack one
    #[arg(long)]
    pub(crate) all_platforms: bool,

    /// When to ask the registry
    #[arg(long, value_name = "WHEN", default_value = "always")]
    pub(crate) policy: PullPolicy,

    /// Store the layers but do not unpack them; `mount` does it later
    #[arg(long)]
    pub(crate) no_unpack: bool,

    /// Begin even if there seems to be too little space
    #[arg(short, long)]
    pub(crate) force: bool,

    /// Layers that are downloaded at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) parallel: u8,

    /// Accept more or less of a layer than the store's settings say, for this time; see `limits`
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) limits: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Upload an image to a registry
///
/// What the registry has is not sent again, and the bytes are those that are in the store.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore push registry.example.com/team/app:1
  layerstore push app:1 localhost:5000/app:1
  layerstore push --platform linux/arm64 localhost:5000/app:1
  layerstore push -a localhost:5000/app")]
pub(crate) struct Push {
    /// The image
    pub(crate) image: String,

    /// Where to push it [default: where its name says]
    #[arg(conflicts_with = "all_tags")]
    pub(crate) destination: Option<String>,

    /// Upload every tag of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,

    /// Upload this platform of a multi-platform image alone
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,

    /// Send layers in requests of at most so many bytes, such as 20M, where something on the way limits them
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) chunk_size: Option<u64>,

    /// Layers that are uploaded at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) parallel: u8,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Look for repositories in a registry, or list the tags of one
///
/// Docker Hub has a search, and few others do.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Fields for --format: .Name .Description .StarCount .IsOfficial .IsAutomated; with --list-tags .Name .Tag

Examples:
  layerstore search postgres
  layerstore search --limit 5 --filter is-official=true postgres
  layerstore search --list-tags registry.example.com/team/app")]
pub(crate) struct Search {
    /// What to look for, with the registry in front if it is not Docker Hub
    #[arg(value_name = "[HOST/]TERM")]
    pub(crate) term: String,

    /// List the tags of this repository
    #[arg(long)]
    pub(crate) list_tags: bool,

    /// Only results that fit: stars=NUMBER, is-official=true|false, is-automated=true|false
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub(crate) filter: Vec<(String, String)>,

    /// At most so many results; of tags all are listed [default: 25]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: Option<u32>,

    /// Print descriptions in full
    #[arg(long)]
    pub(crate) no_trunc: bool,

    #[arg(long, help = LISTING_FORMAT)]
    pub(crate) format: Option<String>,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Manifest {
    Inspect(ManifestInspect),
    Referrers(ManifestReferrers),
}

/// Print the manifest or index that a registry has for a name
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore manifest inspect postgres:16
  layerstore manifest inspect --verbose postgres:16")]
pub(crate) struct ManifestInspect {
    /// The image
    pub(crate) image: String,

    // Takes the place of the global option, as in Docker.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// List what a registry has about an image: signatures, attestations and the like
#[derive(Debug, Args)]
#[command(after_long_help = "\
Fields for --format: .Digest .ArtifactType .MediaType .Size

Example:
  layerstore manifest referrers registry.example.com/team/app:1")]
pub(crate) struct ManifestReferrers {
    /// The image
    pub(crate) image: String,

    /// Only artifacts of this type
    #[arg(long, value_name = "TYPE")]
    pub(crate) artifact_type: Option<String>,

    #[arg(long, help = LISTING_FORMAT)]
    pub(crate) format: Option<String>,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Bytes, also as `20M` or `20MiB`; powers of 1024, as in the limits of web servers.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "it is not a size such as 20M".to_owned())?;
    let unit = match text[digits.len()..].to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err("it is not a size such as 20M".to_owned()),
    };
    number.checked_mul(1 << unit).filter(|size| *size > 0).ok_or_else(|| "it is out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("1", 1), ("2k", 2048), ("20M", 20 << 20), ("1GiB", 1 << 30), ("3mb", 3 << 20), ("1T", 1 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1P", "-1", "0", "1.5M", "99999999999G"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
