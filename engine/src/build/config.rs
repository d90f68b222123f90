//! The config of a new image.
//!
//! That of the image below is changed as JSON, so that what this version does not know stays in it. What was said of
//! the container that the image below was made of is not said of the new one, as with Docker's containerd store.

use jiff::Timestamp;
use layerstore_oci::{Change, DiffId, Digest, DocumentError, Platform, apply_changes};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// What is about the container, the builder, or a parent that has another meaning today.
const DROPPED: [&str; 7] =
    ["id", "container", "container_config", "docker_version", "parent", "parent_id", "throwaway"];

/// One more step of an image's history.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) created: &'a Timestamp,
    pub(super) created_by: Option<&'a str>,
    pub(super) author: Option<&'a str>,
    pub(super) comment: Option<&'a str>,
    pub(super) changes: &'a [Change],
}

/// The config of the image below, `id`.
pub(super) fn base_config(bytes: &[u8], id: &Digest) -> Result<Map<String, Value>> {
    let mut config: Map<String, Value> = serde_json::from_slice(bytes).map_err(|source| Error::Document {
        what: "image config",
        digest: id.to_string(),
        source: DocumentError::Json { what: "image config", source },
    })?;
    for field in DROPPED {
        config.shift_remove(field);
    }
    Ok(config)
}

/// A config of an image without layers.
pub(super) fn new_config(platform: &Platform) -> Map<String, Value> {
    let mut config = Map::new();
    let mut set = |name: &str, text: &str| config.insert(name.to_owned(), Value::String(text.to_owned()));
    set("created", "");
    set("architecture", &platform.architecture);
    if let Some(variant) = &platform.variant {
        set("variant", variant);
    }
    set("os", &platform.os);
    if let Some(version) = &platform.os_version {
        set("os.version", version);
    }
    config.insert("config".to_owned(), json!({}));
    config.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": [] }));
    config.insert("history".to_owned(), json!([]));
    config
}

impl Step<'_> {
    /// Everything but the layer.
    pub(super) fn apply(&self, config: &mut Map<String, Value>) -> Result<()> {
        let text = |text: &str| Value::String(text.to_owned());
        config.insert("created".to_owned(), text(&self.created.to_string()));
        if let Some(author) = self.author {
            config.insert("author".to_owned(), text(author));
        }
        // That of the image below is about the image below.
        match self.comment {
            Some(comment) => drop(config.insert("comment".to_owned(), text(comment))),
            None => drop(config.shift_remove("comment")),
        }
        let inner = config.entry("config").or_insert_with(|| json!({}));
        if !inner.is_object() {
            *inner = json!({});
        }
        if let Value::Object(inner) = inner {
            apply_changes(self.changes, inner)?;
        }
        Ok(())
    }

    fn history(&self) -> Value {
        let mut entry = Map::new();
        entry.insert("created".to_owned(), Value::String(self.created.to_string()));
        for (name, text) in
            [("created_by", self.created_by), ("author", self.author), ("comment", self.comment)]
        {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                entry.insert(name.to_owned(), Value::String(text.to_owned()));
            }
        }
        Value::Object(entry)
    }
}

/// Adds the layer to the lists of layers and of steps.
pub(super) fn with_layer(config: &mut Map<String, Value>, diff_id: &DiffId, step: &Step<'_>) {
    let rootfs = config.entry("rootfs").or_insert_with(|| json!({ "type": "layers" }));
    let below = match rootfs {
        Value::Object(rootfs) => {
            let diff_ids = list(rootfs, "diff_ids");
            diff_ids.push(Value::String(diff_id.to_string()));
            diff_ids.len() - 1
        }
        _ => 0,
    };
    let history = list(config, "history");
    // Images of some tools have no history. A step that is the first of it would be taken for that of the lowest layer.
    let with_layer = |step: &&Value| step.get("empty_layer") != Some(&Value::Bool(true));
    let steps = history.iter().filter(with_layer).count();
    history.extend((steps..below).map(|_| json!({ "created": step.created.to_string() })));
    history.push(step.history());
}

fn list<'c>(object: &'c mut Map<String, Value>, name: &str) -> &'c mut Vec<Value> {
    let value = object.entry(name).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("it has just been made a list"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step<'a>(created: &'a Timestamp, changes: &'a [Change]) -> Step<'a> {
        Step { created, created_by: Some("sh"), author: None, comment: Some("done"), changes }
    }

    fn committed(base: &Value, changes: &[Change]) -> String {
        let created = Timestamp::from_second(86400).unwrap();
        let id = Digest::sha256_of(b"base");
        let mut config = base_config(base.to_string().as_bytes(), &id).unwrap();
        let step = step(&created, changes);
        step.apply(&mut config).unwrap();
        with_layer(&mut config, &Digest::sha256_of(b"layer").into(), &step);
        Value::Object(config).to_string()
    }

    #[test]
    fn what_is_not_known_stays_and_what_was_about_the_container_goes() {
        let base = json!({
            "architecture": "amd64", "moby.buildkit.x": [1], "container": "c", "container_config": {},
            "config": { "Env": ["A=1"], "X": { "y": null } }, "created": "old", "comment": "old",
            "docker_version": "1", "author": "me", "id": "i", "parent": "p", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": ["sha256:1"] },
            "history": [{ "created_by": "ADD" }, { "created_by": "ENV", "empty_layer": true }],
        });
        let layer = Digest::sha256_of(b"layer");
        let expected = json!({
            "architecture": "amd64", "moby.buildkit.x": [1],
            "config": { "Env": ["A=1"], "X": { "y": null }, "User": "u" },
            "created": "1970-01-02T00:00:00Z", "comment": "done", "author": "me", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": ["sha256:1", layer.to_string()] },
            "history": [
                { "created_by": "ADD" }, { "created_by": "ENV", "empty_layer": true },
                { "created": "1970-01-02T00:00:00Z", "created_by": "sh", "comment": "done" },
            ],
        });
        assert_eq!(committed(&base, &[Change::parse("USER u").unwrap()]), expected.to_string());
    }

    #[test]
    fn a_missing_history_is_filled_up() {
        let base = json!({ "config": null, "rootfs": { "type": "layers", "diff_ids": ["a", "b"] }, "history": null });
        let config: Value = serde_json::from_str(&committed(&base, &[])).unwrap();
        let history = config["history"].as_array().unwrap();
        assert_eq!(history.len(), 3);
        assert_eq!(history[2]["comment"], "done");
        assert_eq!(config["config"], json!({}));
    }
}
