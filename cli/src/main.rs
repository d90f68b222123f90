//! The `layerstore` command.
#![expect(dead_code, reason = "the verbs that use these follow")]
mod args;
mod format;
mod template;
fn main() {}
