//! The parts of the sentences that lists are told in.

use layerstore_oci::{Digest, Platform};

pub(super) fn evicted(name: &str, digests: &[Digest]) -> String {
    let layers = if digests.len() == 1 { "layer" } else { "layers" };
    let count = digests.len();
    format!("{name} cannot leave the store without {count} evicted {layers}, {}", comma(digests))
}

pub(super) fn containers(names: &[String]) -> String {
    let what = if names.len() == 1 { "container" } else { "containers" };
    format!("{what} {}", few(names))
}

/// Five of them at most, and how many more there are: an image may have thousands of names.
pub(super) fn few(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => text,
        1 => text + " and 1 other",
        others => format!("{text} and {others} others"),
    }
}

/// The pinned names, where they are not what was given.
pub(super) fn as_names(given: &str, names: &[String]) -> String {
    match names {
        [one] if one == given => String::new(),
        names => format!(" as {}", few(names)),
    }
}

pub(super) fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn comma(digests: &[Digest]) -> String {
    digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
