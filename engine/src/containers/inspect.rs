//! A container in Docker's words.

use serde_json::{Map, Value, json};

use crate::Layerstore;
use crate::error::Result;
use crate::ready::Ready;

impl Layerstore {
    /// Describes a container as `docker container inspect` does: the object that is one element of its array. What only
    /// running containers have is left out.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such container; `InvalidInput` if several IDs begin like this.
    pub fn inspect_container(&self, name: &str) -> Result<Value> {
        let container = self.container(name)?;
        let config = container.image_id.as_ref().and_then(|id| self.config_object(id).ok());
        let mut config = config.and_then(|mut config| config.remove("config")).unwrap_or_else(|| json!({}));
        if let Some(config) = config.as_object_mut() {
            config.insert("Image".to_owned(), container.image.clone().into());
            let mut labels = match config.remove("Labels") {
                Some(Value::Object(labels)) => labels,
                _ => Map::new(),
            };
            labels.extend(container.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())));
            config.insert("Labels".to_owned(), labels.into());
        }
        let (path, args) = container
            .command
            .split_first()
            .map_or((String::new(), Vec::new()), |(path, args)| (path.clone(), args.to_vec()));
        let mut data = Map::new();
        if let Ok((_, ready)) = self.ready_container(&container.id, &|_| {}) {
            data = self.directories(&ready);
        }
        if let Some(mounted) = &container.mounted {
            data.insert("MergedDir".to_owned(), mounted.display().to_string().into());
        }
        let status = if container.mounted.is_some() { "mounted" } else { "created" };
        Ok(json!({
            "Id": container.id,
            "Created": crate::images::time(container.created_at),
            "Path": path,
            "Args": args,
            "State": { "Status": status, "Running": false, "Pid": 0 },
            "Image": container.image_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            "Name": format!("/{}", container.name),
            "Driver": "overlay2",
            "HostConfig": { "StorageOpt": storage_options(&container.settings) },
            "GraphDriver": { "Data": data, "Name": "overlay2" },
            "Mounts": [],
            "Config": config,
        }))
    }

    fn directories(&self, ready: &Ready) -> Map<String, Value> {
        let layout = self.store.layout();
        let text = |path: std::path::PathBuf| Value::from(path.display().to_string());
        let lowers: Vec<String> =
            ready.below.iter().map(|id| layout.diff(id).display().to_string()).collect();
        let mut data = Map::new();
        data.insert("LowerDir".to_owned(), lowers.join(":").into());
        if let Some(own) = &ready.own {
            data.insert("UpperDir".to_owned(), text(layout.diff(own)));
            data.insert("WorkDir".to_owned(), text(layout.work(own)));
        }
        data
    }
}

fn storage_options(settings: &layerstore_store::Settings) -> Value {
    let limits = [("size", settings.quota_bytes), ("inodes", settings.quota_inodes)];
    let given =
        limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?.to_string().into())));
    let given: Map<String, Value> = given.collect();
    if given.is_empty() { Value::Null } else { given.into() }
}
