//! Docker's `certs.d/HOST:PORT`: `*.crt` are certificates of authorities, `NAME.cert` with `NAME.key` is shown to the
//! host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::HostsError;

/// The authorities and identities of a host.
pub(super) type Certificates = (Vec<PathBuf>, Vec<(PathBuf, Option<PathBuf>)>);

/// What the first of the directories that knows `authority` has for it.
pub(super) fn certificates(roots: &[PathBuf], authority: &str) -> Result<Option<Certificates>, HostsError> {
    for root in roots {
        let directory = root.join(authority);
        if let Some(names) = names(&directory)? {
            return read(&directory, &names, true).map(Some);
        }
    }
    Ok(None)
}

/// What a directory of containerd that has no `hosts.toml` holds; containerd lets a key be in the file of its
/// certificate.
pub(super) fn beside_no_file(directory: &Path) -> Result<Certificates, HostsError> {
    let names = names(directory)?.unwrap_or_default();
    read(directory, &names, false)
}

fn read(directory: &Path, names: &[String], key_apart: bool) -> Result<Certificates, HostsError> {
    let (mut authorities, mut identities) = Certificates::default();
    let has = |name: &String| names.binary_search(name).is_ok();
    let missing = |name: &str, missing: String| HostsError::Pair { path: directory.join(name), missing };
    for name in names {
        if name.strip_suffix(".crt").is_some() {
            authorities.push(directory.join(name));
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = format!("{stem}.key");
            if has(&key) {
                identities.push((directory.join(name), Some(directory.join(key))));
            } else if key_apart {
                return Err(missing(name, key));
            } else {
                identities.push((directory.join(name), None));
            }
        } else if let Some(stem) = name.strip_suffix(".key") {
            let certificate = format!("{stem}.cert");
            // In containerd's directories keys of other things may lie about: it takes no notice of them.
            if key_apart && !has(&certificate) {
                return Err(missing(name, certificate));
            }
        }
    }
    Ok((authorities, identities))
}

/// The names in a directory, sorted, without those of directories and those that are no text; `None` if it is not
/// there.
fn names(directory: &Path) -> Result<Option<Vec<String>>, HostsError> {
    let failed = |source| HostsError::Read { path: directory.to_owned(), source };
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(failed)?;
        if !entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(Some(names))
}
