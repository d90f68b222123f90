//! Image configs: what `rootfs` is made of, and how to run it.
//!
//! Read as leniently as Docker reads them, except for what identifies the layers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::document::{RawPlatform, from_json, non_empty};
use crate::{DiffId, DocumentError, Manifest, Platform, lenient};

/// An image config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What the image was built for; none in configs that say nothing, such as those of old imports.
    pub platform: Option<Platform>,
    /// Time of creation, as written: RFC 3339 where tools kept to the spec.
    pub created: Option<String>,
    /// Who built the image.
    pub author: Option<String>,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// How the layers came to be, lowest first; may be shorter or longer than the list of layers.
    pub history: Vec<History>,
    /// How to run a container.
    pub config: ContainerConfig,
}

impl ImageConfig {
    /// Reads a config.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let raw: RawConfig = from_json(bytes, "image config")?;
        let rootfs = raw.rootfs.ok_or(DocumentError::NoRootfs)?;
        if rootfs.kind != "layers" {
            return Err(DocumentError::RootfsType { found: rootfs.kind });
        }
        let platform = RawPlatform {
            architecture: raw.architecture,
            os: raw.os,
            os_version: raw.os_version,
            os_features: raw.os_features,
            variant: raw.variant,
        };
        Ok(Self {
            platform: platform.into_platform(),
            created: non_empty(raw.created),
            author: non_empty(raw.author),
            diff_ids: rootfs.diff_ids,
            history: raw.history,
            config: raw.config,
        })
    }

    /// Checks that the config describes as many layers as `manifest` has.
    pub fn check_layers(&self, manifest: &Manifest) -> Result<(), DocumentError> {
        let (layers, diff_ids) = (manifest.layers.len(), self.diff_ids.len());
        if layers == diff_ids { Ok(()) } else { Err(DocumentError::LayerCount { layers, diff_ids }) }
    }
}

/// One step of the build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct History {
    /// When, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command or instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A message, such as that of `commit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// How to run a container; the fields of the OCI image spec and those Docker adds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// User and group: `1000:1000`, `www-data`.
    #[serde(deserialize_with = "lenient::or_default")]
    pub user: String,
    /// Ports the program listens on: `80/tcp`.
    #[serde(with = "lenient::set", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// Environment, `NAME=value`.
    #[serde(deserialize_with = "lenient::list")]
    pub env: Vec<String>,
    /// Program and first arguments.
    #[serde(deserialize_with = "lenient::command")]
    pub entrypoint: Vec<String>,
    /// Default arguments, or the program if there is no entrypoint.
    #[serde(deserialize_with = "lenient::command")]
    pub cmd: Vec<String>,
    /// Directories that outlive the container.
    #[serde(with = "lenient::set", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// Directory to start in.
    #[serde(deserialize_with = "lenient::or_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "lenient::strings")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the program to stop: `SIGTERM`, `15`.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds to wait after the stop signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Whether the command line is one escaped string (Windows).
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Instructions for images built on this one.
    #[serde(deserialize_with = "lenient::list")]
    pub on_build: Vec<String>,
    /// Shell of the shell form of instructions.
    #[serde(deserialize_with = "lenient::command", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// How to see whether the program is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// Docker's health check. Durations are in nanoseconds; 0 means inherited or default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// The command: `["CMD", …]`, `["CMD-SHELL", …]`, `["NONE"]`.
    #[serde(deserialize_with = "lenient::list", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks during the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make the container unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[derive(Deserialize)]
struct RawConfig {
    // Not flattened: serde would buffer every field it does not know.
    #[serde(default, deserialize_with = "lenient::or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "lenient::or_default")]
    os: String,
    #[serde(default, rename = "os.version", deserialize_with = "lenient::or_default")]
    os_version: String,
    #[serde(default, rename = "os.features", deserialize_with = "lenient::list")]
    os_features: Vec<String>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    variant: String,
    #[serde(default, deserialize_with = "lenient::or_default")]
    created: String,
    #[serde(default, deserialize_with = "lenient::or_default")]
    author: String,
    #[serde(default)]
    rootfs: Option<RawRootfs>,
    #[serde(default, deserialize_with = "lenient::list")]
    history: Vec<History>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    config: ContainerConfig,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default, rename = "type", deserialize_with = "lenient::or_default")]
    kind: String,
    #[serde(default, deserialize_with = "lenient::list")]
    diff_ids: Vec<DiffId>,
}

#[cfg(test)]
mod tests;
