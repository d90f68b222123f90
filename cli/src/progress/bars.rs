//! What bars look like.

use indicatif::{ProgressBar, ProgressStyle};

pub(super) fn new_bar(id: &str, total: Option<u64>) -> ProgressBar {
    let (bar, style) = match total {
        Some(total) => (ProgressBar::new(total), bar_style()),
        None => (ProgressBar::no_length(), counter_style()),
    };
    bar.with_style(style).with_prefix(id.to_owned())
}

pub(super) fn bar_style() -> ProgressStyle {
    style("{prefix}: [{wide_bar}] {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec:>11}")
        .progress_chars("=> ")
}

fn counter_style() -> ProgressStyle {
    style("{prefix}: {spinner} {decimal_bytes:>9} {decimal_bytes_per_sec:>11}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The bar of the whole: both what is downloaded and what is unpacked counts.
pub(super) fn total_bar(length: u64) -> ProgressBar {
    let shown =
        style("Total: [{wide_bar}] {percent:>3} %  {elapsed} (about {eta} to go)").progress_chars("=> ");
    ProgressBar::new(length).with_style(shown)
}
