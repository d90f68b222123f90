//! OCI runtime bundles: from an image's config to a `config.json` that runc and crun run as it is.
//!
//! What the image says becomes what the OCI image specification's `conversion.md` prescribes; what neither says is as
//! Docker has it: mounts, capabilities, masked paths, the default `PATH`. There is no seccomp profile and there are no
//! resource limits; who wants them adds them to the JSON.
//!
//! An image is a stranger's. Its users are looked up inside its root filesystem only, its volumes cannot lead
//! elsewhere or cover what the runtime mounts, and its labels cannot give orders to the runtime.

mod accounts;
mod annotations;
mod defaults;
mod directory;
mod error;
mod files;
mod make;
mod namespaces;
mod process;
mod volumes;

use std::io::Read;
use std::path::{Path, PathBuf};

use layerstore_oci::ImageConfig;
use layerstore_store::{IdRange, ImageInfo};
use serde_json::{Value, json};

pub use directory::BundleDirectory;
pub use error::BundleError;
pub use make::Bundle;
pub use volumes::VolumeDirectory;

use crate::Layerstore;
use crate::error::Result;
use crate::event::Listener;

/// The version of the runtime specification that the configs are written for: what runc 1.1 and crun 1.8 know.
const RUNTIME_SPEC: &str = "1.0.2";

/// Gives a file of the root filesystem by its absolute path, or nothing where there is none. Whoever provides this
/// follows links inside the root filesystem only, and opens nothing but regular files.
pub(crate) type Files<'a> = dyn Fn(&str) -> Result<Option<Box<dyn Read>>> + 'a;

/// What becomes of an image's volumes: directories whose contents are not to be part of the container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Volumes {
    /// Each is a `tmpfs` of its own, which belongs to the container's user, and may be written to by everyone; runc
    /// before 1.2 gives it the mode that the image's directory has. It starts empty: what the image has there is
    /// hidden.
    #[default]
    Tmpfs,
    /// Each is a directory below this one, which may be relative to the bundle, and lasts. It starts empty as well,
    /// and may be written to by everyone in the container.
    Bind(PathBuf),
    /// They are ordinary directories of the root filesystem.
    Ignore,
}

/// What to change of the way an image wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BundleOptions {
    /// In place of the image's entrypoint; the image's command goes with it, as with Docker. An empty one removes
    /// both.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's command, unless empty.
    pub args: Vec<String>,
    /// In place of the image's user: `name`, `uid`, each also with `:group` or `:gid`.
    pub user: Option<String>,
    /// Added to the image's environment, or in place of its variables: `NAME=value`. `NAME` alone removes one.
    pub env: Vec<String>,
    /// In place of the image's working directory.
    pub workdir: Option<String>,
    /// The container's hostname; without it the runtime's default.
    pub hostname: Option<String>,
    /// Whether the root filesystem is read-only.
    pub read_only: bool,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// Whether set-user-ID programs and file capabilities give no privileges.
    pub no_new_privileges: bool,
    /// What becomes of the image's volumes.
    pub volumes: Volumes,
    /// User IDs of a user namespace of the container; without any it has none.
    pub uid_map: Vec<IdRange>,
    /// Group IDs of that namespace. Both are given or neither is.
    pub gid_map: Vec<IdRange>,
}

/// What a runtime is told about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The content of `config.json`. The same image and options give the same bytes.
    pub json: Value,
    /// Directories that must exist before the container starts; see [`BundleDirectory::make_volumes`].
    pub volumes: Vec<VolumeDirectory>,
    /// What of the image's config was left out, and why: sentences for a person.
    pub notes: Vec<String>,
}

impl RuntimeConfig {
    /// The bytes of `config.json`.
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{:#}\n", self.json).into_bytes()
    }
}

impl Layerstore {
    /// Makes the runtime's config for an image by name, whose users are looked up in its own root filesystem.
    ///
    /// Layers that are not unpacked are unpacked first. Fails with a [`BundleError`] where the image or the options
    /// make no sense: nothing to run, an unknown user, a volume at `/`.
    ///
    /// A bundle of an image whose root filesystem cannot be written to:
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use layerstore::{BundleDirectory, BundleOptions, Layerstore};
    ///
    /// let store = Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let config = store.runtime_config("app:1", &BundleOptions::default(), &|_| {})?;
    /// let mut bundle = BundleDirectory::create("/run/app".as_ref(), None)?;
    /// bundle.make_volumes(&config)?;
    /// bundle.write_config(&config)?;
    /// store.mount("app:1", Some(&bundle.rootfs()), &|_| {})?;
    /// // `crun run -b /run/app my-app` works from now on.
    /// bundle.commit();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `InvalidInput` for what makes no sense, see [`BundleError`].
    pub fn runtime_config(
        &self,
        image: &str,
        options: &BundleOptions,
        listener: &Listener<'_>,
    ) -> Result<RuntimeConfig> {
        let found = self.find(image)?;
        let info = crate::mount::unpackable(image, &found)?;
        self.runtime_config_of(image, info, options, listener)
    }

    fn runtime_config_of(
        &self,
        image: &str,
        info: &ImageInfo,
        options: &BundleOptions,
        listener: &Listener<'_>,
    ) -> Result<RuntimeConfig> {
        let config = self.config(&info.config)?;
        let trees = self.unpacked(info, listener)?;
        let rootfs = self.rootfs_of(image, &trees)?;
        runtime_config(&config, &|path| files::in_rootfs(&rootfs, path), options)
    }

    /// The same, with users looked up in the root filesystem at the directory `rootfs`: that of a container, say,
    /// which may have more users than its image.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::runtime_config`]; `NotFound` without the directory.
    pub fn runtime_config_in(
        &self,
        image: &str,
        rootfs: &Path,
        options: &BundleOptions,
    ) -> Result<RuntimeConfig> {
        let found = self.find(image)?;
        let info = crate::mount::unpackable(image, &found)?;
        runtime_config(&self.config(&info.config)?, &*files::files_below(rootfs)?, options)
    }
}

/// Makes the runtime's config from an image's. `files` are those of the root filesystem.
pub(crate) fn runtime_config(
    config: &ImageConfig,
    files: &Files<'_>,
    options: &BundleOptions,
) -> Result<RuntimeConfig> {
    let image = &config.config;
    let user = options.user.as_ref().unwrap_or(&image.user);
    refuse_nul("the user", user)?;
    let account = accounts::account(user, files)?;
    let maps = namespaces::IdMaps::new(&options.uid_map, &options.gid_map)?;
    maps.check(&account)?;
    let hostname = options.hostname.as_deref();
    if let Some(hostname) = hostname {
        refuse_nul("the hostname", hostname)?;
        if hostname.is_empty() || hostname.len() > 64 {
            return Err(BundleError::Hostname { hostname: hostname.to_owned() }.into());
        }
    }
    let process = process::process(image, &account, options)?;
    let mut notes = Vec::new();
    let volumes = volumes::volumes(&image.volumes, &options.volumes, &account, &mut notes)?;
    let mut mounts = defaults::mounts(&maps);
    mounts.extend(volumes.mounts);
    let mut json = json!({
        "ociVersion": RUNTIME_SPEC,
        "process": process,
        "root": { "path": "rootfs", "readonly": options.read_only },
    });
    if let Some(hostname) = hostname {
        json["hostname"] = hostname.into();
    }
    json["mounts"] = mounts.into();
    json["annotations"] = annotations::annotations(config, &mut notes);
    json["linux"] = maps.linux();
    Ok(RuntimeConfig { json, volumes: volumes.directories, notes })
}

/// Refuses what ends early where a C program reads it.
fn refuse_nul(what: &str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(BundleError::Nul { what: what.to_owned() }.into());
    }
    Ok(())
}

/// An absolute path without empty, `.` and `..` components, the last of which take away the one before as Go's
/// `path.Clean` has it.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests;
