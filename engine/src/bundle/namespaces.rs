//! Namespaces of a container, and the IDs of its user namespace.

use layerstore_store::IdRange;
use serde_json::{Value, json};

use super::accounts::Account;
use super::defaults::{MASKED_PATHS, READ_ONLY_PATHS};
use super::error::BundleError;
use crate::error::Result;

/// The kernel's limit for the ranges of a map.
const MAX_RANGES: usize = 340;

/// Both maps, which are usable; empty where there is no user namespace.
pub(super) struct IdMaps<'a> {
    uids: &'a [IdRange],
    gids: &'a [IdRange],
}

impl<'a> IdMaps<'a> {
    pub(super) fn new(uids: &'a [IdRange], gids: &'a [IdRange]) -> Result<Self> {
        for (what, map, other) in [("user", uids, gids), ("group", gids, uids)] {
            check_map(map, other).map_err(|reason| BundleError::IdMap { what, reason })?;
        }
        Ok(Self { uids, gids })
    }

    /// Refuses a process that could not be started: one of its IDs is not in the namespace.
    pub(super) fn check(&self, account: &Account) -> Result<()> {
        let uid = [account.uid];
        for (what, map, ids) in [("user", self.uids, &uid[..]), ("group", self.gids, &account.groups[..])] {
            if let Some(id) = ids.iter().find(|id| !has(map, **id)) {
                return Err(BundleError::NotMapped { what, id: *id }.into());
            }
        }
        Ok(())
    }

    pub(super) fn has_group(&self, gid: u32) -> bool {
        has(self.gids, gid)
    }

    /// The part of a config that is about Linux.
    pub(super) fn linux(&self) -> Value {
        let mut kinds = vec!["pid", "ipc", "uts", "mount", "network", "cgroup"];
        let mut linux = json!({});
        if !self.uids.is_empty() {
            kinds.push("user");
            linux["uidMappings"] = self.uids.iter().map(json_of).collect();
            linux["gidMappings"] = self.gids.iter().map(json_of).collect();
        }
        // As Docker: anyone may listen on port 80 and send a ping in a network that is the container's own.
        linux["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "0" });
        if self.uids.is_empty() {
            // A user namespace has not all of these groups, and the kernel refuses others.
            linux["sysctl"]["net.ipv4.ping_group_range"] = "0 2147483647".into();
        }
        // Both runtimes allow what every container needs, such as /dev/null, after this.
        linux["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        linux["namespaces"] = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        linux["maskedPaths"] = json!(MASKED_PATHS);
        linux["readonlyPaths"] = json!(READ_ONLY_PATHS);
        linux
    }
}

fn json_of(range: &IdRange) -> Value {
    json!({ "containerID": range.container, "hostID": range.host, "size": range.count })
}

fn has(map: &[IdRange], id: u32) -> bool {
    map.is_empty() || map.iter().any(|range| id >= range.container && id - range.container < range.count)
}

fn check_map(map: &[IdRange], other: &[IdRange]) -> Result<(), &'static str> {
    if map.is_empty() && !other.is_empty() {
        return Err("it is missing, and a user namespace has both");
    }
    if map.len() > MAX_RANGES {
        return Err("it has more than 340 ranges");
    }
    // The last ID is no ID: it stands for none.
    let fits = |first: u32, size| first.checked_add(size).is_some();
    for (index, range) in map.iter().enumerate() {
        if range.count == 0 || !fits(range.container, range.count) || !fits(range.host, range.count) {
            return Err("a range is empty or leaves the range of IDs");
        }
        let overlaps = |a: u32, b: u32, other: &IdRange| {
            u64::from(a) < u64::from(b) + u64::from(other.count)
                && u64::from(b) < u64::from(a) + u64::from(range.count)
        };
        if map.iter().take(index).any(|other| {
            overlaps(range.container, other.container, other) || overlaps(range.host, other.host, other)
        }) {
            return Err("two ranges overlap");
        }
    }
    Ok(())
}
