//! The page that `df --html` writes: a map of images and layers, in one file that needs nothing else.
//!
//! Names, labels and digests come from strangers. They reach the page as JSON in a block that is no program, with
//! every character escaped that could end the block; the script of the page puts them into the document as text only.
//! The page's policy lets nothing run and nothing style it but what is embedded here, and lets nothing be fetched.

pub(crate) mod data;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use data::Picture;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// All in one block, so that no name of it is one of the page's.
const SCRIPT: &str = concat!(
    "'use strict';\n{\n",
    include_str!("facts.js"),
    include_str!("map.js"),
    include_str!("page.js"),
    "}\n"
);

/// The page as HTML, complete.
pub(crate) fn page(picture: &Picture) -> String {
    // The data come last: what looks like a place to fill in a name is not one.
    PAGE.replacen("{{policy}}", &content_policy(), 1)
        .replacen("{{style}}", STYLE, 1)
        .replacen("{{script}}", SCRIPT, 1)
        .replacen("{{data}}", &json(picture), 1)
}

/// Nothing from anywhere, but for the style and the script whose hashes these are.
fn content_policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

/// JSON that no parser of HTML or JavaScript takes for anything else: outside of strings none of these characters
/// occurs, and inside all of them may be escaped.
fn json(picture: &Picture) -> String {
    let plain = serde_json::to_string(picture).expect("plain structures are always JSON");
    let mut escaped = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            c => escaped.push(c),
        }
    }
    escaped
}
