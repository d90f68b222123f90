//! Users and groups by the lists inside a root filesystem, found as Docker and runc find them.
//!
//! One rule is ours: an entry whose ID is not a number does not count. Docker takes such an ID for 0, and so would
//! run the container as root.

use std::io::{self, BufRead as _, BufReader, Read};

use super::Files;
use super::error::BundleError;
use crate::error::{Error, Result};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Docker's and runc's largest ID.
const MAX_ID: u32 = i32::MAX.cast_unsigned();

/// The most bytes that a list of users or groups may have.
const MAX_FILE: u64 = 16 << 20;

/// The most bytes that one entry may have. Docker's limit for a user; a group has all its members in one entry.
const MAX_USER: u64 = 64 << 10;
const MAX_GROUP: u64 = 1 << 20;

/// As many groups as Linux allows a process (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The primary group and then the others, in the order of `/etc/group`.
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// A part of `USER[:GROUP]`.
#[derive(Debug, Clone, Copy)]
enum Wanted<'a> {
    Id(u32),
    Name(&'a str),
}

impl<'a> Wanted<'a> {
    fn parse(what: &'static str, text: &'a str) -> Result<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Name(text));
        }
        match text.parse() {
            Ok(id) if id <= MAX_ID => Ok(Self::Id(id)),
            _ => Err(BundleError::IdOutOfRange { what, id: text.to_owned() }.into()),
        }
    }

    fn fits(self, name: &[u8], id: u32) -> bool {
        match self {
            Self::Id(wanted) => wanted == id,
            Self::Name(wanted) => wanted.as_bytes() == name,
        }
    }
}

/// An entry of `/etc/passwd`.
struct User {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    home: String,
}

/// Finds `user`: empty (root), `name`, `uid`, each also with `:group` or `:gid`.
///
/// An ID need not be in a list; its group is then 0. Who comes without a group gets the one of its entry, and those
/// it is a member of.
pub(super) fn account(user: &str, files: &Files<'_>) -> Result<Account> {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let wanted = if user.is_empty() { Wanted::Id(0) } else { Wanted::parse("user", user)? };
    let entry = find_user(wanted, files)?;
    let (uid, mut gid, home) = match (&entry, wanted) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home.clone()),
        (None, Wanted::Id(uid)) => (uid, 0, String::new()),
        (None, Wanted::Name(name)) => {
            return Err(BundleError::NoUser { name: name.to_owned(), file: PASSWD }.into());
        }
    };
    let mut others = Vec::new();
    if !group.is_empty() {
        gid = find_group(Wanted::parse("group", group)?, files)?;
    } else if let Some(entry) = &entry {
        others = groups_of(&entry.name, files)?;
    }
    // Without its own group in the list, a process could pass by a file that denies access to that group.
    let mut groups = vec![gid];
    groups.extend(others.into_iter().filter(|other| *other != gid));
    let home = if home.is_empty() { "/".to_owned() } else { home };
    Ok(Account { uid, gid, groups, home })
}

fn find_user(wanted: Wanted<'_>, files: &Files<'_>) -> Result<Option<User>> {
    let mut found = None;
    each_entry(PASSWD, MAX_USER, files, |fields| {
        let [name, _, uid, gid, rest @ ..] = fields else { return Ok(false) };
        let (Some(uid), Some(gid)) = (id(uid), id(gid)) else { return Ok(false) };
        if !wanted.fits(name, uid) {
            return Ok(false);
        }
        // What is not text cannot be said in JSON.
        // One that a variable cannot hold, or that would talk to a terminal, is none.
        let home = rest.get(1).and_then(|home| str::from_utf8(home).ok());
        let home = home.filter(|home| !home.chars().any(char::is_control)).unwrap_or_default();
        found = Some(User { name: name.to_vec(), uid, gid, home: home.to_owned() });
        Ok(true)
    })?;
    Ok(found)
}

fn find_group(wanted: Wanted<'_>, files: &Files<'_>) -> Result<u32> {
    // An ID stands for itself, whether the list has it or not.
    let name = match wanted {
        Wanted::Id(gid) => return Ok(gid),
        Wanted::Name(name) => name,
    };
    let mut found = None;
    each_entry(GROUP, MAX_GROUP, files, |fields| {
        let [entry, _, gid, ..] = fields else { return Ok(false) };
        found = id(gid).filter(|_| *entry == name.as_bytes());
        Ok(found.is_some())
    })?;
    found.ok_or_else(|| BundleError::NoGroup { name: name.to_owned(), file: GROUP }.into())
}

/// The groups that `user` is listed as a member of, each once.
fn groups_of(user: &[u8], files: &Files<'_>) -> Result<Vec<u32>> {
    let mut groups = Vec::new();
    let mut seen = std::collections::HashSet::new();
    each_entry(GROUP, MAX_GROUP, files, |fields| {
        let [_, _, gid, members, ..] = fields else { return Ok(false) };
        let Some(gid) = id(gid) else { return Ok(false) };
        if !user.is_empty()
            && members.split(|byte| *byte == b',').any(|member| member == user)
            && seen.insert(gid)
        {
            groups.push(gid);
        }
        if groups.len() >= MAX_GROUPS {
            let reason = "has the user in more groups than Linux allows";
            return Err(BundleError::Accounts { file: GROUP, reason }.into());
        }
        Ok(false)
    })?;
    Ok(groups)
}

fn id(field: &[u8]) -> Option<u32> {
    let digits = field.iter().all(u8::is_ascii_digit);
    str::from_utf8(field).ok().filter(|_| digits)?.parse().ok().filter(|id| *id <= MAX_ID)
}

/// Hands the fields of each entry to `take` until that returns true. A list that is not there is an empty one.
fn each_entry(
    file: &'static str,
    max_entry: u64,
    files: &Files<'_>,
    mut take: impl FnMut(&[&[u8]]) -> Result<bool>,
) -> Result<()> {
    let Some(list) = files(file)? else { return Ok(()) };
    let failed = |source: io::Error| Error::from(BundleError::ReadAccounts { file, source });
    let too_large = |reason| Error::from(BundleError::Accounts { file, reason });
    let mut list = BufReader::new(list.take(MAX_FILE + 1));
    let (mut line, mut bytes) = (Vec::new(), 0);
    loop {
        line.clear();
        // One byte more than is allowed, and one for the newline.
        let read = list.by_ref().take(max_entry + 2).read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            return Ok(());
        }
        bytes += read as u64;
        let entry = line.trim_ascii();
        if bytes > MAX_FILE {
            return Err(too_large("has more than 16 MiB"));
        }
        if line.strip_suffix(b"\n").unwrap_or(&line).len() as u64 > max_entry {
            return Err(too_large("has an entry that is too long"));
        }
        // Enough for all fields that have a meaning; a line of colons costs no more than any other.
        let fields: Vec<&[u8]> = entry.split(|byte| *byte == b':').take(8).collect();
        if !entry.is_empty() && take(&fields)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
