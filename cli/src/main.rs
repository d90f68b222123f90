//! The `layerstore` command.
#![expect(dead_code, reason = "the verbs that use these follow")]
mod format;
mod template;
fn main() {}
