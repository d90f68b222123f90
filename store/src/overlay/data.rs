//! A mount as data, for those who perform it themselves.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use super::shape::{Shape, kernel_knows, overlay_options};
use super::{MountOptions, SOURCE, Stack};
use crate::error::{Error, Result};
use crate::layout::Layout;

/// A mount in the form of `mount(8)`, fstab and containerd.
///
/// All paths are absolute. In the options of an overlay `\`, `:` and `,` of paths have a backslash before
/// them, as the kernel wants it (`ovl_next_opt` and `ovl_unescape` in `fs/overlayfs/params.c`). With many
/// layers the options are longer than the page of memory that `mount(2)` takes; containerd then shortens
/// them by a working directory, which it can only do where no path has a `:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `overlay` or `bind`.
    pub kind: String,
    /// The tree of a bind mount; of an overlay only a name.
    pub source: OsString,
    /// What `mount -o` takes, without the commas between.
    pub options: Vec<OsString>,
}

impl Stack {
    /// The mount of this stack in a store with this layout.
    ///
    /// A mount with an ID map cannot be told this way ([`Error::NotSupported`]).
    pub fn as_mount(&self, layout: &Layout, options: &MountOptions) -> Result<Mount> {
        let (lowers, upper, read_only) = match Shape::of(self, layout, options)? {
            _ if options.id_map.is_some() => {
                let reason = "it has to be performed by the store".to_owned();
                return Err(Error::NotSupported { what: "an ID map in the description of a mount", reason });
            }
            Shape::Bind { tree, read_only } => {
                let access = if read_only { "ro" } else { "rw" };
                let options = vec![access.into(), "rbind".into()];
                return Ok(Mount { kind: "bind".to_owned(), source: tree.into(), options });
            }
            Shape::Overlay { lowers, upper, read_only } => (lowers, upper, read_only),
        };
        let mut list: Vec<OsString> = Vec::new();
        if read_only {
            list.push("ro".into());
        }
        for (key, value) in overlay_options(options, upper.is_some(), kernel_knows) {
            list.push(value.map_or_else(|| key.to_owned(), |value| format!("{key}={value}")).into());
        }
        if let Some(upper) = upper {
            list.push(option("workdir=", [upper.work().as_path()]));
            list.push(option("upperdir=", [upper.diff().as_path()]));
        }
        list.push(option("lowerdir=", lowers.iter().map(AsRef::as_ref)));
        Ok(Mount { kind: "overlay".to_owned(), source: SOURCE.into(), options: list })
    }
}

fn option<'a>(key: &str, paths: impl IntoIterator<Item = &'a Path>) -> OsString {
    let mut option = OsString::from(key);
    for (index, path) in paths.into_iter().enumerate() {
        if index > 0 {
            option.push(":");
        }
        option.push(escape(path.as_os_str()));
    }
    option
}

fn escape(path: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(path.len());
    for byte in path.as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    OsString::from_vec(escaped)
}
