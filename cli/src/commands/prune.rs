//! `layerstore image prune`, `container prune` and `system prune`, in Docker's words.

use std::collections::HashMap;
use std::io::{self, BufRead as _};

use layerstore::oci::ErrorKind;
use layerstore::{Collected, Container, Layerstore, Policy, Removed, Scope};

use super::gc::{told, total, wishes};
use crate::args::{ContainerPrune, ImagePrune, Prune, PruneFilter, SystemPrune};
use crate::context::Context;
use crate::errors::Failure;
use crate::output::print;

const DANGLING: &str = "all dangling images";
const UNUSED: &str = "all images without at least one container associated to them";
const STOPPED: &str = "all stopped containers";

pub(super) fn images(context: &Context, args: &ImagePrune) -> Result<(), Failure> {
    let (policy, all) = policy(&args.common, args.all, true)?;
    let what = if all { UNUSED } else { DANGLING };
    if !agreed(&args.common, &format!("WARNING! This will remove {what}."))? {
        return Ok(());
    }
    let store = context.store_or_look(args.common.dry_run)?;
    let dry_run = args.common.dry_run;
    let (collected, end) =
        told(if dry_run { store.plan_collection(&policy) } else { store.collect(&policy) })?;
    print(deleted_images(&collected, dry_run) + &total(collected.freed().allocated, dry_run))?;
    end
}

pub(super) fn containers(context: &Context, args: &ContainerPrune) -> Result<(), Failure> {
    let filters = container_filters(&args.common.filter)?;
    if !agreed(&args.common, &format!("WARNING! This will remove {STOPPED}."))? {
        return Ok(());
    }
    let store = context.store_or_look(args.common.dry_run)?;
    let removed = remove(context, &store, &filters, args.common.dry_run)?;
    let dry_run = args.common.dry_run;
    print(deleted_containers(&removed, dry_run) + &total(sum(&removed), dry_run))
}

pub(super) fn system(context: &Context, args: &SystemPrune) -> Result<(), Failure> {
    if args.volumes {
        return Err(Failure::usage(
            "there are no volumes to prune: the store keeps images and containers only",
        ));
    }
    let dry_run = args.common.dry_run;
    let filters = container_filters(&args.common.filter)?;
    let (policy, all) = policy(&args.common, args.all, false)?;
    if !agreed(&args.common, &system_warning(all, &args.common.filter))? {
        return Ok(());
    }
    let store = context.store_or_look(args.common.dry_run)?;
    let removed = remove(context, &store, &filters, dry_run)?;
    let ids: Vec<String> = removed.iter().map(|(id, _)| id.clone()).collect();
    let (collected, end) =
        told(if dry_run { store.plan_collection_after(&policy, &ids) } else { store.collect(&policy) })?;
    let bytes = sum(&removed).saturating_add(collected.freed().allocated);
    let containers = deleted_containers(&removed, dry_run);
    print(containers + &deleted_images(&collected, dry_run) + &total(bytes, dry_run))?;
    end
}

fn system_warning(all: bool, filters: &[PruneFilter]) -> String {
    let images = if all { UNUSED } else { DANGLING };
    let mut text =
        format!("WARNING! This will remove:\n  - {STOPPED}\n  - {images}\n  - what nothing needs\n");
    if !filters.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        for filter in filters {
            text.extend([format!("  - {}\n", shown(filter))]);
        }
    }
    text
}

fn shown(filter: &PruneFilter) -> String {
    match filter {
        PruneFilter::Until(moment) => format!("until={}", crate::format::time::rfc3339(*moment)),
        PruneFilter::Label(label) => {
            let negated = if label.negated { "!" } else { "" };
            let value = label.value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
            format!("label{negated}={}{value}", label.key)
        }
        PruneFilter::Reference(pattern) => format!("reference={pattern}"),
        PruneFilter::Dangling(only) => format!("dangling={only}"),
    }
}

/// What a prune takes of the images, and whether it is about all that nobody uses.
fn policy(args: &Prune, all: bool, dangling_filter: bool) -> Result<(Policy, bool), Failure> {
    wishes::one_until(&args.filter)?;
    let known = |filter: &PruneFilter| match filter {
        PruneFilter::Until(_) | PruneFilter::Label(_) => true,
        PruneFilter::Dangling(_) => dangling_filter,
        PruneFilter::Reference(_) => false,
    };
    if let Some(filter) = args.filter.iter().find(|filter| !known(filter)) {
        return Err(Failure::usage(format!("the filter `{}` is not one of a prune", shown(filter)))
            .hint("`layerstore gc` takes it"));
    }
    let mut policy = Policy::default();
    let dangling = wishes::apply(&args.filter, &mut policy);
    let all = all || dangling == Some(false);
    policy.scope = if all { Scope::Unused } else { Scope::Dangling };
    Ok((policy, all))
}

/// As Docker asks: a line of standard input that is `y` agrees. Nobody is asked about what is only planned.
fn agreed(args: &Prune, warning: &str) -> Result<bool, Failure> {
    if args.force || args.dry_run {
        return Ok(true);
    }
    print(format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    // Whoever says nothing does not agree, and so does who says something that is no text.
    let read = io::stdin().lock().read_line(&mut answer);
    Ok(read.is_ok() && answer.trim().eq_ignore_ascii_case("y"))
}

/// Conditions on containers.
struct ContainerFilters<'a> {
    filters: &'a [PruneFilter],
}

fn container_filters(filters: &[PruneFilter]) -> Result<ContainerFilters<'_>, Failure> {
    wishes::one_until(filters)?;
    for filter in filters {
        if !matches!(filter, PruneFilter::Until(_) | PruneFilter::Label(_)) {
            return Err(Failure::usage(format!("the filter `{}` is not one for containers", shown(filter))));
        }
    }
    Ok(ContainerFilters { filters })
}

impl ContainerFilters<'_> {
    fn fit(&self, container: &Container) -> bool {
        self.filters.iter().all(|filter| match filter {
            PruneFilter::Until(moment) => container.created_at < *moment,
            PruneFilter::Label(label) => {
                let found = container.labels.get(&label.key);
                let fits = match &label.value {
                    Some(value) => found == Some(value),
                    None => found.is_some(),
                };
                fits != label.negated
            }
            PruneFilter::Reference(_) | PruneFilter::Dangling(_) => true,
        })
    }
}

/// Removes containers that nobody uses, or says which. Returns IDs and bytes on disk.
fn remove(
    context: &Context,
    store: &Layerstore,
    filters: &ContainerFilters<'_>,
    dry_run: bool,
) -> Result<Vec<(String, u64)>, Failure> {
    let mut containers = store.containers()?;
    containers.retain(|container| container.mounted.is_none() && filters.fit(container));
    if containers.is_empty() {
        return Ok(Vec::new());
    }
    let in_use = store.containers_in_use()?;
    let sizes = store.container_sizes()?.into_iter().map(|usage| (usage.id, usage.size.allocated));
    let sizes: HashMap<String, u64> = sizes.collect();
    let mut removed = Vec::new();
    for container in containers {
        if let Some(user) = in_use.get(&container.id) {
            context.note(&format!("container {} is in use by {user}", container.name));
            continue;
        }
        if !dry_run {
            match store.remove_container(&container.id, false) {
                Ok(_) => {}
                // Mounted, used or removed by somebody since it was listed.
                Err(error) if matches!(error.kind(), ErrorKind::InUse | ErrorKind::NotFound) => {
                    context.note(&error.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let bytes = sizes.get(&container.id).copied().unwrap_or(0);
        removed.push((container.id, bytes));
    }
    Ok(removed)
}

fn sum(removed: &[(String, u64)]) -> u64 {
    removed.iter().map(|(_, bytes)| bytes).sum()
}

fn deleted_containers(removed: &[(String, u64)], dry_run: bool) -> String {
    let title = if dry_run { "Would delete Containers:" } else { "Deleted Containers:" };
    section(title, removed.iter().map(|(id, _)| id.clone()))
}

fn deleted_images(collected: &Collected, dry_run: bool) -> String {
    let (title, untagged, deleted) = if dry_run {
        ("Would delete Images:", "would untag", "would delete")
    } else {
        ("Deleted Images:", "untagged", "deleted")
    };
    let lines = collected.removed().into_iter().map(|removed| match removed {
        Removed::Untagged(name) => format!("{untagged}: {}", name.familiar()),
        Removed::Deleted(digest) => format!("{deleted}: {digest}"),
    });
    section(title, lines)
}

fn section(title: &str, lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { String::new() } else { format!("{title}\n{}\n\n", lines.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};

    fn image_prune(line: &str) -> ImagePrune {
        let words = format!("layerstore image prune {line}");
        let cli = <Cli as clap::Parser>::try_parse_from(words.split_whitespace()).unwrap();
        match cli.command.resolve() {
            Command::ImagePrune(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn scope(line: &str) -> Result<Scope, Failure> {
        let args = image_prune(line);
        policy(&args.common, args.all, true).map(|(policy, _)| policy.scope)
    }

    #[test]
    fn only_images_without_a_name_go_unless_all_shall() {
        assert_eq!(scope("").unwrap(), Scope::Dangling);
        assert_eq!(scope("--filter label=a --filter until=1h").unwrap(), Scope::Dangling);
        assert_eq!(scope("-a").unwrap(), Scope::Unused);
        assert_eq!(scope("--filter dangling=false").unwrap(), Scope::Unused);
        assert!(scope("--filter until=1h --filter until=2h").is_err());
        assert!(scope("--filter reference=a").is_err());
    }

    #[test]
    fn the_warning_is_dockers() {
        let filters = image_prune("--filter label!=x --filter until=0").common.filter;
        let expected = "\
WARNING! This will remove:
  - all stopped containers
  - all images without at least one container associated to them
  - what nothing needs

  Items to be pruned will be filtered with:
  - label!=x
";
        assert!(system_warning(true, &filters).starts_with(expected), "{}", system_warning(true, &filters));
        assert!(system_warning(false, &[]).contains("\n  - all dangling images\n"));
    }
}
