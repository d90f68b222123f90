//! `commit`.

use clap::{Args, ValueEnum};
use layerstore::CommitOptions;
use layerstore::oci::{Change, Compression};

use super::import::CHANGE_HELP;

/// Make an image of what was changed in a container
///
/// Adds one layer to the container's image, and prints the ID of the new image. The container stays as it is.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Environment: SOURCE_DATE_EPOCH (seconds since 1970) is the time at which the image was made, and nothing in its layer
is newer. With it, committing the same again gives the same image.

Examples:
  layerstore commit work app:2
  layerstore commit -a 'Ada <ada@example.com>' -m 'add numpy' work app:2
  layerstore commit -c 'CMD [\"/usr/bin/app\"]' -c 'USER app' work app:2")]
pub(crate) struct Commit {
    /// Who made the image
    #[arg(short, long)]
    pub(crate) author: Option<String>,

    /// What was done, for the image's history
    #[arg(short, long)]
    pub(crate) message: Option<String>,

    #[arg(short, long = "change", value_name = "INSTRUCTION", value_parser = Change::parse, help = CHANGE_HELP)]
    pub(crate) changes: Vec<Change>,

    /// How to compress the new layer
    #[arg(long, value_name = "FORM", default_value = "gzip")]
    pub(crate) compression: CompressionForm,

    /// A container
    pub(crate) container: String,

    /// The name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionForm {
    Gzip,
    Zstd,
    None,
}

impl Commit {
    /// `created` is what `SOURCE_DATE_EPOCH` says, see [`crate::context::source_date_epoch`].
    pub(crate) fn options(&self, created: Option<i64>) -> CommitOptions {
        let compression = match self.compression {
            CompressionForm::Gzip => Compression::Gzip,
            CompressionForm::Zstd => Compression::Zstd,
            CompressionForm::None => Compression::None,
        };
        CommitOptions {
            author: self.author.clone(),
            message: self.message.clone(),
            changes: self.changes.clone(),
            compression,
            created,
            ..CommitOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches as _};

    use super::*;

    fn parse(words: &[&str]) -> Result<Commit, clap::Error> {
        let command = Commit::augment_args(Command::new("commit"));
        let words = std::iter::once("commit").chain(words.iter().copied());
        Commit::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    #[test]
    fn options_of_docker_are_taken() {
        let line = ["-a", "me", "-m", "done", "-c", "USER app", "--change", "CMD=x", "work", "app:2"];
        let commit = parse(&line).unwrap();
        assert_eq!((commit.container.as_str(), commit.name.as_deref()), ("work", Some("app:2")));
        let options = commit.options(Some(7));
        assert_eq!(options.author.as_deref(), Some("me"));
        assert_eq!(options.message.as_deref(), Some("done"));
        assert_eq!(options.changes.len(), 2);
        assert_eq!((options.compression, options.created), (Compression::Gzip, Some(7)));
        let plain = parse(&["--compression", "none", "work"]).unwrap();
        assert_eq!(plain.options(None).compression, Compression::None);
        for wrong in [&["work", "-c", "RUN x"][..], &["--compression", "xz", "work"], &[]] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
