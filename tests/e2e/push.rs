//! `push` to real registries.
