//! `layerstore ps`.

use jiff::Timestamp;
use layerstore::oci::Reference;
use layerstore::{Container, Layerstore};

use crate::args::{ContainerFilter, Ps};
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::number::human_size;
use crate::format::{ellipsis, printable, time, truncate_id};
use crate::output::print;
use crate::template::Value;

const TITLES: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("ImageID", "IMAGE ID"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Ports", "PORTS"),
];

pub(super) fn run(context: &Context, args: &Ps) -> Result<(), Failure> {
    let format = format(args);
    let listing = Listing::new(&format)?;
    let store = context.store_to_look()?;
    let mut containers = store.containers()?;
    // Who asks for a state wants to see what is in it.
    let all = args.all || args.filter.iter().any(|filter| matches!(filter, ContainerFilter::Mounted(_)));
    containers.retain(|container| {
        (all || container.mounted.is_some()) && args.filter.iter().all(|filter| fits(container, filter))
    });
    let now = Timestamp::now().as_second();
    let sized = args.size || format.contains(".Size");
    let row = |container: &Container| row(container, now, !args.no_trunc, &size(&store, container, sized));
    let rows: Vec<Value> = containers.iter().map(row).collect();
    print(listing.render(TITLES, &rows)?)
}

/// `--format`, or the table that the other options ask for.
fn format(args: &Ps) -> String {
    match args.format.as_deref() {
        None | Some("table") if args.quiet => "{{.ID}}".to_owned(),
        None | Some("table") => {
            let size = if args.size { "\t{{.Size}}" } else { "" };
            format!(
                "table {{{{.ID}}}}\t{{{{.Image}}}}\t{{{{.Command}}}}\t{{{{.RunningFor}}}}\t{{{{.Status}}}}\t{{{{.Names}}}}{size}"
            )
        }
        Some(format) => format.to_owned(),
    }
}

/// Counting takes a look at every file, so nobody gets it unasked.
fn size(store: &Layerstore, container: &Container, wanted: bool) -> String {
    if !wanted {
        return "0B".to_owned();
    }
    match store.container_usage(&container.id) {
        Ok(usage) => human_size(usage.bytes),
        // Its files are gone, or it went while this was listing: no reason not to show the others.
        Err(error) => {
            tracing::info!(%error, container = container.name, "files are not counted");
            "N/A".to_owned()
        }
    }
}

fn fits(container: &Container, filter: &ContainerFilter) -> bool {
    match filter {
        ContainerFilter::Id(prefix) => container.id.starts_with(prefix),
        ContainerFilter::Name(part) => container.name.contains(part),
        ContainerFilter::Ancestor(image) => is_ancestor(container, image),
        ContainerFilter::Mounted(mounted) => container.mounted.is_some() == *mounted,
        ContainerFilter::Label(name, value) => match (container.labels.get(name), value) {
            (Some(found), Some(value)) => found == value,
            (found, None) => found.is_some(),
            (None, Some(_)) => false,
        },
    }
}

fn is_ancestor(container: &Container, image: &str) -> bool {
    let hex = image.strip_prefix("sha256:").unwrap_or(image);
    let ids = container.image_id.iter().chain([&container.manifest]);
    let by_id = hex.len() >= 4 && ids.into_iter().any(|id| id.starts_with(hex));
    let parsed = |text: &str| text.parse::<Reference>().ok();
    by_id || container.image == image || parsed(image).is_some() && parsed(image) == parsed(&container.image)
}

/// The fields of a row, in the order of Docker's JSON.
fn row(container: &Container, now: i64, truncate: bool, size: &str) -> Value {
    let command = printable(&container.command.join(" "));
    let command = if truncate { ellipsis(&command, 20) } else { command };
    let labels: Vec<String> =
        container.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let state = if container.mounted.is_some() { "mounted" } else { "created" };
    let status = if container.mounted.is_some() { "Mounted" } else { "Created" };
    let mounts = container.mounted.as_ref().map(|path| printable(&path.display().to_string()));
    let image_id = container.image_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let cut = |id: &str| if truncate { truncate_id(id).to_owned() } else { id.to_owned() };
    Value::fields([
        ("Command", Value::str(format!("\"{command}\""))),
        ("CreatedAt", Value::str(time::created_at(container.created_at))),
        ("ID", Value::str(cut(&container.id))),
        ("Image", Value::str(printable(&container.image))),
        ("ImageID", Value::str(cut(&image_id))),
        ("Labels", Value::str(printable(&labels.join(",")))),
        ("LocalVolumes", Value::str("0")),
        ("Mounts", Value::str(mounts.unwrap_or_default())),
        ("Names", Value::str(&container.name)),
        ("Networks", Value::str("")),
        ("Ports", Value::str("")),
        ("RunningFor", Value::str(time::ago(container.created_at, now))),
        ("Size", Value::str(size)),
        ("State", Value::str(state)),
        ("Status", Value::str(status)),
    ])
}
