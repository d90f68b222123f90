//! What snapshots are, and how they are mounted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::overlay::IdRange;

/// What a snapshot can be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// It can be mounted and written to, and be committed.
    Active,
    /// It can be mounted read-only.
    View,
    /// It can be the parent of others.
    Committed,
}

impl SnapshotKind {
    /// As containerd writes it in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::View => "view",
            Self::Committed => "committed",
        }
    }
}

impl fmt::Display for SnapshotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SnapshotKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Active, Self::View, Self::Committed]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Error::InvalidRow { what: "kind of snapshot", value: text.to_owned() })
    }
}

/// How a snapshot is mounted, and how much may be written to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Nothing of what is written is synced, not even where a program asks for it: faster, and lost with the machine.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub volatile: bool,
    /// User IDs of the container and what they are outside; none for the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid_map: Vec<IdRange>,
    /// The same for group IDs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid_map: Vec<IdRange>,
    /// The most bytes that its own files may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// The most files that it may have of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_inodes: Option<u64>,
}

impl Settings {
    /// Whether anything limits what may be written.
    pub fn has_quota(&self) -> bool {
        self.quota_bytes.is_some() || self.quota_inodes.is_some()
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|_| Error::InvalidRow { what: "set of mount settings", value: text.to_owned() })
    }

    pub(crate) fn to_json(&self) -> String {
        // Texts, numbers and lists of them can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}
