//! What Docker gives every container (`daemon/pkg/oci/defaults.go` and `caps` of moby).

use serde_json::{Value, json};

use super::namespaces::IdMaps;

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Of the host, these tell too much, or can be used against it.
pub(super) const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

pub(super) const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The group `tty`, which Debian, Fedora, Alpine and others agree on.
const TTY: u32 = 5;

/// Capabilities of a process. For another user than root only the bounding set: what remains of the others after
/// a program is started as such a user. Nothing is inheritable, so that file capabilities give no more than they say.
pub(super) fn capabilities(uid: u32) -> Value {
    if uid == 0 {
        json!({ "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES })
    } else {
        json!({ "bounding": CAPABILITIES })
    }
}

pub(super) fn mounts(maps: &IdMaps<'_>) -> Vec<Value> {
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // The kernel refuses a group that the container's user namespace has not.
    if maps.has_group(TTY) {
        terminals.push("gid=5");
    }
    let mount = |kind: &str, source: &str, destination: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let strict = ["nosuid", "noexec", "nodev"];
    let read_only = ["nosuid", "noexec", "nodev", "ro"];
    vec![
        mount("proc", "proc", "/proc", &strict),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("devpts", "devpts", "/dev/pts", &terminals),
        mount("sysfs", "sysfs", "/sys", &read_only),
        mount("cgroup", "cgroup", "/sys/fs/cgroup", &read_only),
        mount("mqueue", "mqueue", "/dev/mqueue", &strict),
        mount("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ]
}
