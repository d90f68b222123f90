//! What an embedder may expect of snapshots: containerd's suite for snapshotters, and more, on real mounts.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod content;
mod deep;
mod in_use;
mod lab;
mod power_cut;
mod races;
mod reboot;
mod roots;
mod stacks;
mod states;
mod views;
