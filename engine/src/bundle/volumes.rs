//! An image's volumes as mounts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use layerstore_oci::Digest;
use serde_json::{Value, json};

use super::accounts::Account;
use super::error::BundleError;
use super::{Volumes, clean};
use crate::error::Result;

/// More than any real image has; each costs a mount, and perhaps a directory.
const MAX_VOLUMES: usize = 1000;

/// The longest name of a file.
const NAME_MAX: usize = 255;

/// What the runtime mounts itself. A volume there would hide it, and with it what is masked.
const RUNTIME_PLACES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A directory of the host that a container has mounted as a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDirectory {
    /// The directory that holds it, which may be relative to the bundle.
    pub parent: PathBuf,
    /// Its name: the path in the container, with `%2F` for each slash but the first.
    pub name: String,
    /// Where the container has it.
    pub destination: String,
}

#[derive(Default)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<Value>,
    pub(super) directories: Vec<VolumeDirectory>,
}

pub(super) fn volumes(
    paths: &BTreeSet<String>,
    how: &Volumes,
    account: &Account,
    notes: &mut Vec<String>,
) -> Result<Mounts> {
    let mut found = Mounts::default();
    if *how == Volumes::Ignore {
        return Ok(found);
    }
    for destination in destinations(paths, notes)? {
        let Volumes::Bind(parent) = how else {
            // Docker's options for a tmpfs but for `noexec`: a volume may hold programs.
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "mode=1777".to_owned()];
            // runc before 1.2 takes the mode of the image's directory instead, which is seldom everyone's.
            if account.uid != 0 || account.gid != 0 {
                options.extend([format!("uid={}", account.uid), format!("gid={}", account.gid)]);
            }
            found.mounts.push(
                json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options }),
            );
            continue;
        };
        let name = name_of(&destination);
        let source = parent.join(&name);
        let source = source.to_str().ok_or_else(|| BundleError::NotUtf8 { path: parent.clone() })?;
        super::refuse_nul("the directory of the volumes", source)?;
        let options = ["rbind", "rprivate", "nosuid", "nodev"];
        found.mounts.push(
            json!({ "destination": destination, "type": "bind", "source": source, "options": options }),
        );
        found.directories.push(VolumeDirectory { parent: parent.clone(), name, destination });
    }
    Ok(found)
}

/// Clean paths, each once, a directory before what is below it.
fn destinations(paths: &BTreeSet<String>, notes: &mut Vec<String>) -> Result<BTreeSet<String>> {
    if paths.len() > MAX_VOLUMES {
        return Err(BundleError::TooManyVolumes { count: paths.len(), limit: MAX_VOLUMES }.into());
    }
    let mut all = BTreeSet::new();
    for path in paths {
        let refused = |reason| BundleError::Volume { path: path.escape_default().to_string(), reason };
        if path.contains('\0') {
            return Err(refused("it contains a NUL byte").into());
        }
        if !path.starts_with('/') {
            return Err(refused("it is not an absolute path").into());
        }
        if path.split('/').any(|part| part == "..") {
            return Err(refused("it contains `..`").into());
        }
        let path = clean(path);
        if path == "/" {
            return Err(refused("it is the root").into());
        }
        let of_runtime = RUNTIME_PLACES.iter().any(|place| {
            path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if of_runtime {
            notes
                .push(format!("the image's volume `{path}` is left out: the runtime mounts something there"));
        } else {
            all.insert(path);
        }
    }
    Ok(all)
}

/// A name for a volume's directory. No two volumes share one.
fn name_of(destination: &str) -> String {
    let name = destination.trim_start_matches('/').replace('%', "%25").replace('/', "%2F");
    if name.len() <= NAME_MAX {
        return name;
    }
    // No name of the other form has a `%` before an `s`.
    format!("%sha256-{}", Digest::sha256_of(destination.as_bytes()).hex())
}
