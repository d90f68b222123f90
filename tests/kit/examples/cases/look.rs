//! What is in a directory, also one that does not quite work.
//!
//! Overlayfs lists a whiteout in a directory that it does not merge, while every other call says that it does not exist.
//! Where a mount shows such a thing, that is the finding, so it must not end the walk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

/// The time that the builders give to every file.
const USUAL_TIME: (i64, i64) = (1_700_000_000, 0);

/// All that is below `root`, sorted, in the words of [`layerstore_testkit::cases::describe`]; what is listed and cannot
/// be reached has a `?`. With `all`, also owners, times, extended attributes, numbers of links and holes, where they are
/// not the usual ones.
pub(crate) fn describe(root: &Path, all: bool) -> Vec<String> {
    let dir = openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .unwrap_or_else(|e| panic!("cannot open {}: {e}", root.display()));
    let mut lines = BTreeSet::new();
    let mode = rustix::fs::fstat(&dir).expect("an open directory").st_mode & 0o7777;
    if mode != 0o755 {
        lines.insert(format!("./ {mode:04o}"));
    }
    directory(&dir, "", all, &mut lines);
    lines.into_iter().collect()
}

fn directory(dir: &OwnedFd, path: &str, all: bool, lines: &mut BTreeSet<String>) {
    let Ok(names) = Dir::read_from(dir) else {
        lines.insert(format!("{path} ?"));
        return;
    };
    for entry in names.filter_map(Result::ok) {
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let child = format!("{path}{}", name.escape_ascii());
        let Some((line, stat)) = file(dir, name, &child) else {
            lines.insert(format!("{} ?", shortened(&child)));
            continue;
        };
        let usual = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => 0o755,
            FileType::Symlink => 0o777,
            _ => 0o644,
        };
        let permissions = match stat.st_mode & 0o7777 {
            mode if mode == usual => String::new(),
            mode => format!(" {mode:04o}"),
        };
        let more = if all { unusual(dir, name, &stat) } else { String::new() };
        lines.insert(format!("{line}{permissions}{more}"));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            match open(dir, name, OFlags::DIRECTORY) {
                Some(below) => directory(&below, &format!("{child}/"), all, lines),
                None => drop(lines.insert(format!("{}/ ?", shortened(&child)))),
            }
        }
    }
}

fn open(dir: &OwnedFd, name: &[u8], flags: OFlags) -> Option<OwnedFd> {
    openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn file(dir: &OwnedFd, name: &[u8], path: &str) -> Option<(String, Stat)> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let path = shortened(path);
    let line = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => format!("{path}/"),
        FileType::RegularFile => {
            let mut content = Vec::new();
            File::from(open(dir, name, OFlags::RDONLY)?).read_to_end(&mut content).ok()?;
            match content.len() {
                length @ 100.. => format!("{path} = <{length} bytes>"),
                _ => format!("{path} = {}", content.escape_ascii()),
            }
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).ok()?;
            format!("{path} -> {}", target.to_bytes().escape_ascii())
        }
        FileType::Fifo => format!("{path} |"),
        _ => format!("{path} c {} {}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
    };
    Some((line, stat))
}

fn unusual(dir: &OwnedFd, name: &[u8], stat: &Stat) -> String {
    let mut found = vec![String::new()];
    let time = (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(-1));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let kind = FileType::from_raw_mode(stat.st_mode);
    if (stat.st_uid, stat.st_gid) != (0, 0) {
        found.push(format!("{}:{}", stat.st_uid, stat.st_gid));
    }
    if now.abs_diff(u64::try_from(time.0).unwrap_or(0)) < 86_400 {
        found.push("@now".to_owned());
    } else if time != USUAL_TIME {
        found.push(format!("@{}.{:09}", time.0, time.1));
    }
    if kind != FileType::Directory && stat.st_nlink > 1 {
        found.push(format!("links {}", stat.st_nlink));
    }
    if kind == FileType::RegularFile && stat.st_blocks * 512 < stat.st_size / 2 {
        found.push("holes".to_owned());
    }
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(&path[..], &mut list[..]).unwrap_or(0);
    let names: BTreeSet<_> =
        list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    // What overlayfs keeps for itself, and what it shows of a mark that was escaped, is no part of an image.
    let names = names.into_iter().filter(|name| !name.starts_with(b"trusted.overlay."));
    found.extend(names.map(|name| format!("{{{}}}", name.escape_ascii())));
    found.join(" ")
}

/// A long path without its middle.
fn shortened(path: &str) -> String {
    if path.len() < 100 {
        return path.to_owned();
    }
    format!("{}…{} ({} bytes)", &path[..8], &path[path.len() - 8..], path.len())
}
