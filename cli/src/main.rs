//! The `layerstore` command.
#![expect(dead_code, reason = "the verbs that use these follow")]
mod args;
mod format;
mod progress;
mod template;
fn main() {}
