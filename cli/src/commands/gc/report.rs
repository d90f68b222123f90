//! What a collection did, in words.

use std::collections::{BTreeMap, HashMap};

use layerstore::oci::Digest;
use layerstore::{
    Cause, Collected, CollectedKind, CollectedObject, Kept, Reason, RemovedName, Size, Space, Stays, familiar,
};

use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::number::human_size4;
use crate::format::{printable, time, truncate_id};
use crate::template::Value;

/// What is done, or would be.
struct Verbs {
    untag: &'static str,
    delete: &'static str,
    evict: &'static str,
}

const DONE: Verbs = Verbs { untag: "Untagged", delete: "Deleted", evict: "Evicted" };
const PLANNED: Verbs = Verbs { untag: "Would untag", delete: "Would delete", evict: "Would evict" };

/// Names first, then objects that go for another reason than a name; with `all` each object, and what stays.
pub(super) fn text(collected: &Collected, dry_run: bool, all: bool, now: i64) -> String {
    let verbs = if dry_run { PLANNED } else { DONE };
    let mut by_name: HashMap<&str, Vec<&CollectedObject>> = HashMap::new();
    let mut evicted: Vec<(&str, Vec<&CollectedObject>)> = Vec::new();
    for object in &collected.objects {
        match &object.cause {
            Some(Cause::Name(name)) => by_name.entry(name).or_default().push(object),
            Some(Cause::Evicted(name)) => match evicted.last_mut() {
                Some((last, objects)) if last == name => objects.push(object),
                _ => evicted.push((name, vec![object])),
            },
            Some(Cause::Unreachable) | None => {}
        }
    }
    let by_name: HashMap<String, Vec<&CollectedObject>> =
        by_name.into_iter().map(|(name, objects)| (familiar(name), objects)).collect();
    let mut out = String::new();
    for name in &collected.names {
        let objects = by_name.get(&name.name).map(Vec::as_slice).unwrap_or_default();
        out.push_str(&name_line(name, objects, &verbs, now));
    }
    for (name, objects) in &evicted {
        let size: Size = objects.iter().map(|object| object.size).sum();
        out.extend([format!("{}: {} ({})\n", verbs.evict, shown(&familiar(name)), frees(size, objects))]);
    }
    for object in &collected.objects {
        let told = matches!(object.cause, Some(Cause::Name(_) | Cause::Evicted(_)));
        if all || !told {
            let size = if object.size.allocated > 0 {
                format!(" ({})", human_size4(object.size.allocated))
            } else {
                String::new()
            };
            out.extend([format!(
                "{} {}: {}{size}\n",
                verbs.delete,
                object.kind.as_str(),
                printable(&object.name)
            )]);
        }
    }
    if all {
        out.extend(collected.kept.iter().map(|kept| kept_line(kept, now)));
    }
    out + &total(collected.freed().allocated, dry_run)
}

/// As Docker's `prune` ends.
pub(crate) fn total(bytes: u64, dry_run: bool) -> String {
    let sum = if dry_run { "Reclaimable space" } else { "Total reclaimed space" };
    format!("{sum}: {}\n", human_size4(bytes))
}

fn name_line(name: &RemovedName, objects: &[&CollectedObject], verbs: &Verbs, now: i64) -> String {
    let frees = frees(name.freed, objects);
    match name.reason {
        Reason::Dangling => {
            format!("{} image: {} (has no name, {frees})\n", verbs.delete, truncate_id(&name.id.to_string()))
        }
        Reason::Unused { since } => {
            format!("{}: {} (unused for {}, {frees})\n", verbs.untag, shown(&name.name), span(since, now))
        }
    }
}

/// `frees 1.2GB: 5 blobs, 3 trees`.
fn frees(size: Size, objects: &[&CollectedObject]) -> String {
    if objects.is_empty() {
        return "frees nothing: the rest is still needed".to_owned();
    }
    let mut counts: Vec<(CollectedKind, usize)> = Vec::new();
    for object in objects.iter().filter(|object| object.kind != CollectedKind::Snapshot) {
        match counts.iter_mut().find(|(kind, _)| *kind == object.kind) {
            Some((_, count)) => *count += 1,
            None => counts.push((object.kind, 1)),
        }
    }
    let counts: Vec<String> = counts.into_iter().map(|(kind, number)| count(number, kind.as_str())).collect();
    let what = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    format!("frees {}{what}", human_size4(size.allocated))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Without a capital letter, since it stands within a sentence.
fn span(then: i64, now: i64) -> String {
    let text = time::human_duration(u64::try_from(now.saturating_sub(then)).unwrap_or(0));
    match text.strip_prefix("About") {
        Some(rest) => format!("about{rest}"),
        None => text.replace("Less than", "less than"),
    }
}

/// A name, or the first digits of the digest of an image without one.
fn shown(name: &str) -> String {
    let short = name.parse::<Digest>().is_ok().then(|| truncate_id(name).to_owned());
    short.unwrap_or_else(|| printable(name))
}

fn names(kept: &Kept) -> String {
    let names: Vec<String> = kept.names.iter().map(|name| shown(&familiar(name))).collect();
    names.join(", ")
}

fn kept_line(kept: &Kept, now: i64) -> String {
    let reasons: Vec<String> = kept.stays.iter().map(|stays| reason(stays, now)).collect();
    format!("Kept: {} ({})\n", names(kept), reasons.join("; "))
}

/// Why an image stays.
pub(crate) fn reason(stays: &Stays, now: i64) -> String {
    match stays {
        Stays::Container(name) => format!("in use by container {}", printable(name)),
        Stays::Mounted(target) => format!("mounted at {}", printable(&target.display().to_string())),
        Stays::Leased => "a command that is running or was interrupted needs it".to_owned(),
        Stays::Snapshot { owner, key } => {
            format!("snapshot {} of {} is above it", printable(key), printable(owner))
        }
        Stays::Pinned(name) => format!("{} is pinned", shown(name)),
        Stays::Protected(name, pattern) => {
            format!("{} is protected by {}", shown(name), printable(&pattern.to_string()))
        }
        Stays::AmongLast(name) => format!("{} is among the newest of its repository", shown(name)),
        Stays::NotNamed(name) => format!("{} does not match", shown(name)),
        Stays::Owner(owner) => format!("it belongs to {}", printable(owner)),
        Stays::UsedAt(at) => format!("used {} ago", span(*at, now)),
        Stays::BuiltAt(Some(at)) => format!("built {} ago", span(*at, now)),
        Stays::BuiltAt(None) => "it does not say when it was built".to_owned(),
        Stays::Labels => "its labels do not match".to_owned(),
        Stays::Enough => "enough is freed without it".to_owned(),
        Stays::NoBlobs => "some of its layers are not here as blobs".to_owned(),
        Stays::NoTrees => "some of its layers are not unpacked".to_owned(),
        Stays::Source(name) => {
            format!("{name} tells where to fetch layers that other images need and that were evicted")
        }
        Stays::NotPulled => "it was not pulled, so nobody knows where to fetch it again".to_owned(),
    }
}

/// In JSON and templates.
fn word(stays: &Stays) -> &'static str {
    match stays {
        Stays::Container(_) => "container",
        Stays::Mounted(_) => "mounted",
        Stays::Leased => "leased",
        Stays::Snapshot { .. } => "snapshot",
        Stays::Pinned(_) => "pinned",
        Stays::Protected(..) => "protected",
        Stays::AmongLast(_) => "among-last",
        Stays::NotNamed(_) => "not-named",
        Stays::Owner(_) => "owner",
        Stays::UsedAt(_) => "used-since",
        Stays::BuiltAt(_) => "newer",
        Stays::Labels => "labels",
        Stays::Enough => "enough",
        Stays::NoBlobs => "no-blobs",
        Stays::NoTrees => "no-trees",
        Stays::Source(_) => "source",
        Stays::NotPulled => "not-pulled",
    }
}

/// What one and what several images are, in the sentence on a goal that was missed.
fn because(stays: &Stays) -> (&'static str, &'static str) {
    match stays {
        Stays::Container(_) => ("is in use by a container", "are in use by containers"),
        Stays::Mounted(_) => ("is mounted", "are mounted"),
        Stays::Leased => ("is needed by a command", "are needed by commands"),
        Stays::Snapshot { .. } => ("has a snapshot above it", "have snapshots above them"),
        Stays::Pinned(_) => ("is pinned", "are pinned"),
        Stays::Protected(..) => ("is protected", "are protected"),
        Stays::AmongLast(_) => {
            ("is among the newest of its repository", "are among the newest of their repositories")
        }
        Stays::NotNamed(_) => ("has another name", "have other names"),
        Stays::Owner(_) => ("belongs to another owner", "belong to other owners"),
        Stays::UsedAt(_) => ("was used since", "were used since"),
        Stays::BuiltAt(_) => ("was built later", "were built later"),
        Stays::Labels => ("has other labels", "have other labels"),
        Stays::Enough => ("was not needed for it", "were not needed for it"),
        Stays::NoBlobs => ("has no blobs to unpack again", "have no blobs to unpack again"),
        Stays::NoTrees => ("is not unpacked", "are not unpacked"),
        Stays::Source(_) => ("has evicted layers that others need", "have evicted layers that others need"),
        Stays::NotPulled => ("was not pulled", "were not pulled"),
    }
}

/// Says it if less was freed than was asked for, and who stood in the way.
pub(super) fn missed(collected: &Collected, dry_run: bool) -> Option<String> {
    let (wanted, freed) = (collected.wanted?, collected.freed().allocated);
    if freed >= wanted {
        return None;
    }
    let reasons = reasons(collected).unwrap_or_else(|| "there is no other image".to_owned());
    let verb = if dry_run { "could be freed" } else { "were freed" };
    Some(format!("{} were asked for, {} {verb}: {reasons}", human_size4(wanted), human_size4(freed)))
}

/// That a policy found images and left all of them alone, where nobody has asked for so many bytes: why, in short.
pub(super) fn untouched(collected: &Collected) -> Option<String> {
    let evicted = |object: &CollectedObject| matches!(object.cause, Some(Cause::Evicted(_)));
    if collected.wanted.is_some() || !collected.names.is_empty() || collected.objects.iter().any(evicted) {
        return None;
    }
    Some(format!("no image is touched: {}; -v names them", reasons(collected)?))
}

/// `2 images are in use, 1 is pinned`; none if no image stays.
fn reasons(collected: &Collected) -> Option<String> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for stays in collected.kept.iter().filter_map(|kept| kept.stays.first()) {
        *counts.entry(because(stays)).or_default() += 1;
    }
    let mut counts: Vec<((&str, &str), usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let reasons: Vec<String> = counts
        .into_iter()
        .enumerate()
        .map(|(index, ((one, several), count))| {
            let image = if index > 0 {
                ""
            } else if count == 1 {
                " image"
            } else {
                " images"
            };
            format!("{count}{image} {}", if count == 1 { one } else { several })
        })
        .collect();
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

/// `86 %`.
pub(super) fn share(space: &Space) -> String {
    let used = u128::from(space.total.saturating_sub(space.available));
    format!("{} %", (used * 100).checked_div(u128::from(space.total)).unwrap_or(0))
}

const TITLES: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("Name", "NAME"),
    ("ID", "ID"),
    ("Size", "SIZE"),
    ("Freed", "FREED"),
    ("Reason", "REASON"),
    ("Since", "SINCE"),
];

/// A row each: names with what goes with them (`Freed`), then objects with what they take (`Size`), so that no byte is in
/// one column twice; with `all` also what stays.
pub(super) fn rows(collected: &Collected, listing: &Listing, all: bool) -> Result<String, Failure> {
    let number = |bytes: u64| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
    let row =
        |kind: &str, name: &str, id: &str, [size, freed]: [u64; 2], reason: &str, since: Option<i64>| {
            Value::fields([
                ("Type", Value::str(kind)),
                ("Name", Value::str(name)),
                ("ID", Value::str(id)),
                ("Size", number(size)),
                ("Freed", number(freed)),
                ("Reason", Value::str(reason)),
                ("Since", since.map_or(Value::Nil, Value::Int)),
            ])
        };
    let names = collected.names.iter().map(|name| {
        let (reason, since) = match name.reason {
            Reason::Dangling => ("dangling", None),
            Reason::Unused { since } => ("unused", Some(since)),
        };
        row("image", &name.name, &name.id.to_string(), [0, name.freed.allocated], reason, since)
    });
    let objects = collected.objects.iter().map(|object| {
        let (reason, name) = match &object.cause {
            Some(Cause::Unreachable) | None => ("unneeded", String::new()),
            Some(Cause::Name(name)) => ("untagged", familiar(name)),
            Some(Cause::Evicted(name)) => ("evicted", familiar(name)),
        };
        row(object.kind.as_str(), &name, &object.name, [object.size.allocated, 0], reason, None)
    });
    let kept = collected.kept.iter().filter(|_| all).flat_map(|kept| {
        let first = kept.stays.first().map_or("", word);
        kept.names
            .iter()
            .map(move |name| row("kept", &familiar(name), &kept.id.to_string(), [0, 0], first, None))
    });
    let rows: Vec<Value> = names.chain(objects).chain(kept).collect();
    Ok(listing.render(TITLES, &rows)?)
}

#[cfg(test)]
mod tests;
