//! Arguments of `tree-diff`.

use clap::Args;

/// List how the files of two images differ, without mounting them
///
/// Prints a line for each file that the second has and the first has not (A), the other way round (D), or that is
/// not the same in both (C): type, content, mode, owner, group, time of modification, extended attributes and what
/// else a program can see. A directory is a change only if it differs itself. Of a directory that is only in the
/// first, what is in it is left out.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Fields for --format: .Kind .Path

Examples:
  layerstore tree-diff app:1 app:2
  layerstore tree-diff --format '{{.Path}}' app:1 app:2")]
pub(crate) struct TreeDiff {
    /// What there was
    #[arg(value_name = "IMAGE")]
    pub(crate) before: String,

    /// What it is compared with
    #[arg(value_name = "IMAGE")]
    pub(crate) after: String,

    #[arg(long, help = "json (one object per line) or a Go template such as '{{.Kind}} {{.Path}}'")]
    pub(crate) format: Option<String>,
}
