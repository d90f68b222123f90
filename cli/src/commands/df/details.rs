//! `df -v`: each image and container.

use layerstore::oci::Reference;
use layerstore::{ContainerUsage, DetailedUsage, ImageUsage};
use serde_json::{Value as Json, json};

use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::number::{human_size, human_size4};
use crate::format::{printable, time, truncate_id};
use crate::template::Value;

const IMAGES: &str = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Created}}\t{{.LastUsed}}\t{{.Size}}\t\
                      {{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}\t{{.Freed}}";
const IMAGE_TITLES: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("Created", "CREATED"),
    ("LastUsed", "LAST USED"),
    ("Size", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
    ("Freed", "FREED BY RMI"),
];
const CONTAINERS: &str = "table {{.ID}}\t{{.Image}}\t{{.Size}}\t{{.Created}}\t{{.Status}}\t{{.Names}}";
const CONTAINER_TITLES: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Size", "SIZE"),
    ("Created", "CREATED"),
    ("Status", "STATUS"),
    ("Names", "NAMES"),
];

pub(super) fn text(found: &DetailedUsage, now: i64) -> Result<String, Failure> {
    let rows: Vec<Value> = found.images.iter().flat_map(|image| image_rows(image, now)).collect();
    let images = Listing::new(IMAGES)?.render(IMAGE_TITLES, &rows)?;
    let rows: Vec<Value> = found.containers.iter().map(|container| container_row(container, now)).collect();
    let containers = Listing::new(CONTAINERS)?.render(CONTAINER_TITLES, &rows)?;
    let mut text = format!("Images space usage:\n\n{images}\nContainers space usage:\n\n{containers}");
    if !found.usage.unknown.is_empty() {
        text.push_str("\nUnknown files, which `gc` deletes:\n\n");
        for (path, size) in &found.usage.unknown {
            let path = printable(&path.to_string_lossy());
            text.extend([path.as_str(), " (", &human_size4(size.allocated), ")\n"]);
        }
    }
    Ok(text)
}

/// A row per name, as Docker has it.
fn image_rows(image: &ImageUsage, now: i64) -> Vec<Value> {
    let shown = image.variants.first();
    let id = shown.map_or(&image.target, |variant| &variant.id).to_string();
    let sum = |figure: fn(&layerstore::VariantUsage) -> u64| shown.map_or(0, figure);
    let containers: usize = image.variants.iter().map(|variant| variant.containers.len()).sum();
    let ago = |at: Option<i64>| at.map_or_else(|| "N/A".to_owned(), |at| time::ago(at, now));
    let names = image.names.iter().map(|name| name_parts(name));
    names
        .map(|(repository, tag)| {
            Value::fields([
                ("Repository", Value::str(repository)),
                ("Tag", Value::str(tag)),
                ("ID", Value::str(truncate_id(&id))),
                ("Created", Value::str(ago(shown.and_then(|variant| variant.created)))),
                ("LastUsed", Value::str(ago(image.last_used_at))),
                ("Size", Value::str(human_size(sum(|variant| variant.size)))),
                ("SharedSize", Value::str(human_size(sum(|variant| variant.shared)))),
                ("UniqueSize", Value::str(human_size(sum(layerstore::VariantUsage::unique)))),
                ("Containers", Value::str(containers.to_string())),
                ("Freed", Value::str(human_size(image.freed.allocated))),
            ])
        })
        .collect()
}

/// Repository and tag of a stored name.
fn name_parts(name: &str) -> (String, String) {
    let none = || "<none>".to_owned();
    if name.parse::<layerstore::oci::Digest>().is_ok() {
        return (none(), none());
    }
    match name.parse::<Reference>() {
        Ok(name) => (name.familiar_repository().to_owned(), name.tag().map_or_else(none, str::to_owned)),
        Err(_) => (name.to_owned(), none()),
    }
}

fn container_row(container: &ContainerUsage, now: i64) -> Value {
    let status = match (&container.mounted, &container.in_use) {
        (Some(_), _) => "Mounted",
        (None, Some(_)) => "In use",
        (None, None) => "Created",
    };
    Value::fields([
        ("ID", Value::str(&container.id[..12.min(container.id.len())])),
        ("Image", Value::str(printable(&container.image))),
        ("Size", Value::str(human_size(container.size.allocated))),
        ("Created", Value::str(time::ago(container.created_at, now))),
        ("Status", Value::str(status)),
        ("Names", Value::str(&container.name)),
    ])
}

/// One object, as Docker prints it for `-v`, with bytes as numbers.
pub(super) fn json(found: &DetailedUsage, now: i64) -> String {
    let images: Vec<Json> = found
        .images
        .iter()
        .flat_map(|image| {
            let shown = image.variants.first();
            let containers: usize = image.variants.iter().map(|variant| variant.containers.len()).sum();
            image.names.iter().map(move |name| {
                let (repository, tag) = name_parts(name);
                json!({
                    "Containers": containers.to_string(),
                    "CreatedAt": shown.and_then(|variant| variant.created).map(time::created_at),
                    "CreatedSince": shown.and_then(|variant| variant.created).map(|at| time::ago(at, now)),
                    "Digest": image.target.to_string(),
                    "ID": shown.map_or(&image.target, |variant| &variant.id).to_string(),
                    "Repository": repository,
                    "Tag": tag,
                    "Size": shown.map_or(0, |variant| variant.size),
                    "SharedSize": shown.map_or(0, |variant| variant.shared),
                    "UniqueSize": shown.map_or(0, layerstore::VariantUsage::unique),
                    "Freed": image.freed.allocated,
                    "LastUsed": image.last_used_at,
                    "Pulled": image.pulled_at,
                    "Pinned": image.pinned,
                })
            })
        })
        .collect();
    let containers: Vec<Json> = found
        .containers
        .iter()
        .map(|container| {
            json!({
                "ID": container.id,
                "Image": container.image,
                "Names": container.name,
                "CreatedAt": time::created_at(container.created_at),
                "Mounted": container.mounted.as_ref().map(|path| path.display().to_string()),
                "InUseBy": container.in_use,
                "Size": container.size.allocated,
                "Apparent": container.size.apparent,
            })
        })
        .collect();
    let parts: serde_json::Map<String, Json> = found
        .usage
        .parts
        .iter()
        .map(|(kind, part)| {
            let figures = json!({
                "TotalCount": part.count,
                "Active": part.active,
                "Apparent": part.size.apparent,
                "Allocated": part.size.allocated,
                "Reclaimable": part.reclaimable,
            });
            (super::name(*kind).to_owned(), figures)
        })
        .collect();
    let unknown: Vec<Json> = found
        .usage
        .unknown
        .iter()
        .map(|(path, size)| json!({ "Path": path.to_string_lossy(), "Allocated": size.allocated }))
        .collect();
    let object = json!({
        "Images": images,
        "Containers": containers,
        "Parts": parts,
        "Unknown": unknown,
        "Missing": found.usage.missing,
        "Total": found.usage.total.map(|size| json!({ "Apparent": size.apparent, "Allocated": size.allocated })),
    });
    format!("{object}\n")
}
