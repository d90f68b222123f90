//! Annotations: what the image says that a runtime has no field for, as `conversion.md` names it, and its labels.

use std::collections::BTreeMap;

use layerstore_oci::ImageConfig;
use serde_json::Value;

/// Labels that begin like this are orders to a runtime or an engine, and are not taken from an image: crun opens files
/// of the host for `run.oci.hooks.stdout`, runc sets properties of systemd units for `org.systemd.property.`, criu runs
/// programs by the file that `org.criu.config` names.
const ORDERS: [&str; 11] = [
    "run.oci.",
    "org.systemd.",
    "org.criu.",
    "org.opencontainers.runc.",
    "module.wasm.",
    "dev.gvisor.",
    "io.katacontainers.",
    "com.github.containers.",
    "io.kubernetes.cri",
    "io.containerd.",
    "io.podman.",
];

pub(super) fn annotations(config: &ImageConfig, notes: &mut Vec<String>) -> Value {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() && !value.contains('\0') {
            all.insert(format!("org.opencontainers.image.{name}"), value.to_owned());
        }
    };
    if let Some(platform) = &config.platform {
        add("os", &platform.os);
        add("architecture", &platform.architecture);
        add("variant", platform.variant.as_deref().unwrap_or_default());
        add("os.version", platform.os_version.as_deref().unwrap_or_default());
        add("os.features", &platform.os_features.join(","));
    }
    add("author", config.author.as_deref().unwrap_or_default());
    add("created", config.created.as_deref().unwrap_or_default());
    add("stopSignal", &config.config.stop_signal);
    let ports: Vec<&str> = config.config.exposed_ports.iter().map(String::as_str).collect();
    add("exposedPorts", &ports.join(","));
    for (key, value) in &config.config.labels {
        let reason = if ORDERS.iter().any(|prefix| key.starts_with(prefix)) {
            "it would be an order to the runtime"
        } else if key.is_empty() {
            "it has no name"
        } else if key.contains('\0') || value.contains('\0') {
            "it contains a NUL byte"
        } else {
            all.insert(key.clone(), value.clone());
            continue;
        };
        notes.push(format!("the image's label `{}` is left out: {reason}", key.escape_default()));
    }
    all.into_iter().map(|(key, value)| (key, Value::from(value))).collect()
}
