//! ID maps: the owners of an image's files seen with other numbers.
//!
//! A container with a user namespace of its own has its root as, say, user 100000 of the host. Instead of
//! changing the owners of all files, the mounts of the layers get the map (`MOUNT_ATTR_IDMAP`, Linux 5.12, for
//! layers of overlayfs 5.19): on disk a file belongs to 0, in the mount to 100000, and what the container
//! creates as its root belongs to 0 on disk again. An owner outside the map is shown as nobody.

use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use nix::libc;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};

use super::{Attempt, namespace};
use crate::error::{Error, Result};

/// Consecutive IDs of a container and of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first ID in the container, and on disk.
    pub container: u32,
    /// The first ID on the host, and in the mount.
    pub host: u32,
    /// How many.
    pub count: u32,
}

/// Reads `container:host:count`, as in `0:100000:65536`.
impl FromStr for IdRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut numbers = text.split(':').map(|number| {
            // `parse` takes a plus sign.
            number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten()
        });
        match [(); 4].map(|()| numbers.next()) {
            [Some(Some(container)), Some(Some(host)), Some(Some(count)), None] => {
                Ok(Self { container, host, count })
            }
            _ => Err(invalid(format!("`{text}` is not CONTAINER:HOST:COUNT"))),
        }
    }
}

/// How the IDs of a container's user namespace are those of the host.
#[derive(Debug, Clone)]
pub struct IdMap(Source);

#[derive(Debug, Clone)]
enum Source {
    Ranges { uids: Vec<IdRange>, gids: Vec<IdRange> },
    Namespace(Arc<OwnedFd>),
}

/// Lines of a map, and bytes of its text, that the kernel takes (`map_write` in `kernel/user_namespace.c`,
/// Linux 4.15).
const MAX_RANGES: usize = 340;
const MAX_TEXT: usize = 4095;

impl IdMap {
    /// A map of users and one of groups. Each needs at least one range; ranges must not overlap, neither in
    /// the container nor on the host.
    pub fn new(uids: Vec<IdRange>, gids: Vec<IdRange>) -> Result<Self> {
        check("users", &uids)?;
        check("groups", &gids)?;
        Ok(Self(Source::Ranges { uids, gids }))
    }

    /// Reads ranges `container:host:count` with commas between, of users and of groups.
    pub fn parse(uids: &str, gids: &str) -> Result<Self> {
        let ranges = |text: &str| text.split(',').map(str::parse).collect::<Result<Vec<_>>>();
        Self::new(ranges(uids)?, ranges(gids)?)
    }

    /// The map of a user namespace that exists: an open `/proc/PID/ns/user`.
    pub fn from_namespace(namespace: OwnedFd) -> Self {
        Self(Source::Namespace(Arc::new(namespace)))
    }

    pub(super) fn mapper(&self) -> Mapper<'_> {
        Mapper { map: self, namespace: None }
    }

    fn namespace(&self) -> Result<Arc<OwnedFd>> {
        match &self.0 {
            Source::Namespace(namespace) => Ok(Arc::clone(namespace)),
            Source::Ranges { uids, gids } => {
                namespace::user_namespace(&text(uids), &text(gids)).map(Arc::new)
            }
        }
    }
}

/// Makes id-mapped mounts with one user namespace.
pub(super) struct Mapper<'a> {
    map: &'a IdMap,
    namespace: Option<Arc<OwnedFd>>,
}

impl Mapper<'_> {
    /// A mount of `directory` that is attached nowhere, with the map.
    pub(super) fn clone_of(&mut self, directory: &Path) -> Result<OwnedFd, Attempt> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let clone = open_tree(CWD, directory, flags)?;
        let namespace = match &self.namespace {
            Some(namespace) => namespace,
            None => self.namespace.insert(self.map.namespace()?),
        };
        set_attributes(&clone, MountAttrFlags::MOUNT_ATTR_IDMAP, Some(namespace))
            .map_err(|errno| unsupported(directory, errno))?;
        Ok(clone)
    }
}

/// Sets attributes of a detached mount: `mount_setattr(2)`.
#[expect(unsafe_code, reason = "no crate has mount_setattr")]
pub(super) fn set_attributes(
    mount: &OwnedFd,
    set: MountAttrFlags,
    user_namespace: Option<&OwnedFd>,
) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: set.bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: the path is an empty C string, and the structure is read only, of the size that is given.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            std::mem::size_of_val(&attributes),
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

/// Why a map cannot be had at a path.
pub(super) fn unsupported(path: &Path, errno: Errno) -> Error {
    let why = match errno {
        Errno::NOSYS => "the kernel has no such mounts (Linux 5.12)".to_owned(),
        Errno::INVAL => "the filesystem, or overlayfs in this kernel (Linux 5.19), cannot map IDs".to_owned(),
        Errno::OVERFLOW => "the map has no ID for the owner of the store's directories".to_owned(),
        Errno::PERM => {
            "the filesystem belongs to another user namespace, or its IDs are mapped already".to_owned()
        }
        other => std::io::Error::from(other).to_string(),
    };
    Error::NotSupported { what: "an ID-mapped mount", reason: format!("{}: {why}", path.display()) }
}

fn text(ranges: &[IdRange]) -> String {
    let mut text = String::new();
    for IdRange { container, host, count } in ranges {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{container} {host} {count}");
    }
    text
}

fn check(what: &str, ranges: &[IdRange]) -> Result<()> {
    if ranges.is_empty() {
        return Err(invalid(format!("it has no {what}")));
    }
    if ranges.len() > MAX_RANGES || text(ranges).len() > MAX_TEXT {
        return Err(invalid(format!("{} ranges of {what} are more than the kernel takes", ranges.len())));
    }
    for range in ranges {
        // The last ID is no ID (`(uid_t) -1`).
        let fits = |first: u32| first.checked_add(range.count).is_some();
        if range.count == 0 || !fits(range.container) || !fits(range.host) {
            return Err(invalid(format!("{what} {} are not a range of IDs", show(*range))));
        }
    }
    for (side, first) in
        [("in the container", |range: &IdRange| range.container), ("on the host", |r| r.host)]
            as [(&str, fn(&IdRange) -> u32); 2]
    {
        let mut sorted: Vec<_> = ranges.iter().collect();
        sorted.sort_by_key(|range| first(range));
        for pair in sorted.windows(2) {
            if let [low, high] = pair
                && first(low) + low.count > first(high)
            {
                let pair = format!("{} and {}", show(**low), show(**high));
                return Err(invalid(format!("{what} {pair} overlap {side}")));
            }
        }
    }
    Ok(())
}

fn show(range: IdRange) -> String {
    format!("{}:{}:{}", range.container, range.host, range.count)
}

fn invalid(reason: String) -> Error {
    Error::InvalidIdMap { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_three_numbers() {
        let range: IdRange = "0:100000:65536".parse().unwrap();
        assert_eq!(range, IdRange { container: 0, host: 100_000, count: 65536 });
        for text in
            ["", "0", "0:1", "0:1:2:3", "0:1:-2", "0:+1:2", "0:1:4294967296", "a:1:2", "0::1", " 0:1:2"]
        {
            assert!(text.parse::<IdRange>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn maps_are_checked() {
        assert!(IdMap::parse("0:100000:65536", "0:100000:1000,1000:5:1").is_ok());
        for (uids, expected) in [
            ("0:1:0", "not a range"),
            ("4294967295:1:1", "not a range"),
            ("0:4294967290:6", "not a range"),
            ("0:100:10,9:500:1", "overlap in the container"),
            ("20:109:1,0:100:10", "overlap on the host"),
        ] {
            let error = IdMap::parse(uids, "0:0:1").unwrap_err().to_string();
            assert!(error.contains(expected), "{uids}: {error}");
            assert!(IdMap::parse("0:0:1", uids).is_err());
        }
        let one = IdRange { container: 0, host: 0, count: 1 };
        let many: Vec<_> =
            (0..=340).map(|id| IdRange { container: 2 * id, host: 2 * id, count: 1 }).collect();
        assert!(IdMap::new(many, vec![one]).is_err());
        assert!(IdMap::new(vec![], vec![one]).is_err());
    }
}
