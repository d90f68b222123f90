//! `search --list-tags`, `manifest inspect` and `manifest referrers`.
