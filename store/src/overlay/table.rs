//! What is mounted where, and taking it away.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::StatxAttributes;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::{DIFF, SOURCE};
use crate::clock::{mount_id, stat_mount};
use crate::error::{IoContext as _, Result};
use crate::layout::TreeId;

/// Takes a mount away. A mount that is busy is refused by the kernel.
pub(crate) fn unmount_at(target: &Path) -> Result<()> {
    unmount(target, UnmountFlags::NOFOLLOW).context("unmount", target)
}

/// The ID of what is mounted exactly at `path`, on top of all others there.
pub(crate) fn mount_at(path: &Path) -> io::Result<Option<i64>> {
    match stat_mount(path) {
        Ok(found) if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => Ok(Some(mount_id(&found))),
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether trees are mounted at `path`, be it below another mount, where no path leads to them.
pub(crate) fn is_mounted_below(path: &Path) -> io::Result<bool> {
    Ok(shows_ours(&fs::read("/proc/self/mountinfo")?, path))
}

/// The same of a table that was read already.
pub(crate) fn shows_ours(table: &[u8], path: &Path) -> bool {
    table.split(|byte| *byte == b'\n').any(|line| is_ours(line, path))
}

/// Whether a line of the table is about trees mounted at `path`: an overlay of ours, or a bind mount of what
/// looks like one of our trees.
fn is_ours(line: &[u8], path: &Path) -> bool {
    // The root within the filesystem is the fourth field, the mount point the fifth.
    let mut fields = line.split(|byte| *byte == b' ');
    let root = fields.nth(3).map(unescape).unwrap_or_default();
    let here = fields.next().is_some_and(|point| unescape(point) == path.as_os_str().as_bytes());
    here && (is_own_overlay(line) || is_tree(Path::new(std::ffi::OsStr::from_bytes(&root))))
}

/// Whether a line of the table is about an overlay of ours, wherever it is mounted.
pub(crate) fn is_own_overlay(line: &[u8]) -> bool {
    // Type and source come after fields that vary in number.
    let mut rest = line.split(|byte| *byte == b' ').skip_while(|field| *field != b"-").skip(1);
    rest.next() == Some(b"overlay") && rest.next() == Some(SOURCE.as_bytes())
}

/// Whether a path ends like that of a tree: `overlay2/<id>/diff`.
fn is_tree(path: &Path) -> bool {
    let mut names = path.iter().rev();
    let is_id = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<TreeId>().is_ok());
    names.next().is_some_and(|name| name == DIFF)
        && names.next().is_some_and(is_id)
        && names.next().is_some_and(|name| name == "overlay2")
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_our_mounts() {
        let cases: [(&str, bool); 5] = [
            ("1 2 0:3 / /a\\040b rw,relatime shared:1 - overlay layerstore rw", true),
            ("1 2 0:3 / /a\\040b rw - overlay overlay rw", false),
            ("1 2 8:1 /var/x/overlay2/abcd1234/diff /a\\040b ro - ext4 /dev/vda rw", true),
            ("1 2 8:1 /var/x/diff /a\\040b ro - ext4 /dev/vda rw", false),
            ("1 2 0:3 / /elsewhere rw - overlay layerstore rw", false),
        ];
        for (line, expected) in cases {
            assert_eq!(is_ours(line.as_bytes(), Path::new("/a b")), expected, "{line}");
        }
    }
}
