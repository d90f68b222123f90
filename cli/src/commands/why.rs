//! `layerstore why`.

use jiff::Timestamp;
use layerstore::{Chain, FreedBy, Outlook, Policy, Scope, Staying, Stays, Verdict, Why as Answer, familiar};
use serde_json::{Value as Json, json};

use super::gc::{reason, wishes};
use super::print_object;
use crate::args::{Conditions, Why, read_policy};
use crate::context::Context;
use crate::errors::Failure;
use crate::format::number::human_size4;
use crate::format::{printable, time, truncate_id};

/// Ways that are shown unless all are asked for.
const SHOWN: usize = 20;
/// The kind of a container, as the library says it.
const CONTAINER: &str = "container";
/// Names that are shown of a way or reason with many.
const NAMES: usize = 5;

pub(super) fn run(context: &Context, args: &Why) -> Result<(), Failure> {
    let now = Timestamp::now().as_second();
    if let Some(image) = &args.freed_by {
        let freed = context.store_to_look()?.freed_by(image)?;
        return print_object(&freed_json(&freed), args.format.as_deref(), || {
            freed_text(&freed, context.verbose)
        });
    }
    let given = args.policy.as_deref().map(read_policy).transpose()?;
    let wishes = given.map(|file| wishes::resolve(&Conditions::default(), &file, now)).transpose()?;
    let watermark = wishes.as_ref().and_then(|wishes| wishes.watermark);
    let policy = wishes.map(|wishes| wishes.policy);
    let object = args.object.as_deref().unwrap_or_default();
    let answer = context.store_to_look()?.why(object, policy.as_ref())?;
    print_object(&json(&answer), args.format.as_deref(), || {
        Words { answer: &answer, policy: policy.as_ref(), watermark, now, all: context.verbose }.text()
    })
}

/// What one answer says.
struct Words<'a> {
    answer: &'a Answer,
    policy: Option<&'a Policy>,
    watermark: Option<(u8, u8)>,
    now: i64,
    all: bool,
}

impl Words<'_> {
    fn text(&self) -> String {
        let mut out = self.head() + "\n";
        out.push_str(&self.chains());
        out.push_str(&self.outlook());
        out
    }

    /// `layer blob sha256:… (1.2MB, 1.2MB on disk, application/…, stored 3 weeks ago)`.
    fn head(&self) -> String {
        let answer = self.answer;
        let mut facts = Vec::new();
        if let Some(size) = answer.size {
            facts.push(format!("{}, {} on disk", human_size4(size.apparent), human_size4(size.allocated)));
        }
        facts.extend(answer.media_type.as_deref().map(printable));
        let made = if answer.kind == CONTAINER { "created" } else { "stored" };
        facts.extend(answer.created_at.map(|at| format!("{made} {}", lower(&time::ago(at, self.now)))));
        let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
        let name = match answer.kind.as_str() {
            "image" | "artifact" => {
                listed(answer.name.split(", ").map(printable).collect::<Vec<_>>().into_iter(), self.all)
            }
            _ => printable(&answer.name),
        };
        match &answer.file {
            Some(file) => format!(
                "file {} in the {} {name}{facts}",
                printable(&file.display().to_string()),
                answer.kind
            ),
            None => format!("{} {name}{facts}", answer.kind),
        }
    }

    fn chains(&self) -> String {
        let chains = &self.answer.chains;
        let mut out = String::new();
        let shown = chains.iter().filter(|chain| self.all || !chain.detour);
        let shown: Vec<&Chain> = shown.take(if self.all { usize::MAX } else { SHOWN }).collect();
        for chain in &shown {
            out.extend([format!("  {}\n", self.chain(chain))]);
        }
        let rest = chains.len() - shown.len();
        if self.answer.more {
            out.extend([format!("  and more than {rest} other ways\n")]);
        } else if rest > 0 {
            let ways = if rest == 1 { "way" } else { "ways" };
            out.extend([format!("  and {rest} other {ways}; -v shows all\n")]);
        }
        out
    }

    /// `name localhost/app:1 → manifest sha256:0123456789ab → this: layer 3 of 12`.
    fn chain(&self, chain: &Chain) -> String {
        let keepers = chain.keepers.iter().map(|keeper| {
            let until =
                keeper.expires_at.map(|at| format!(" until {}", time::minute(at))).unwrap_or_default();
            printable(&keeper.text) + &until
        });
        let mut text = listed(keepers, self.all);
        let last = chain.steps.len().saturating_sub(1);
        for (index, step) in chain.steps.iter().enumerate() {
            if index == last {
                text.extend([format!(" → this: {}", step.what)]);
            } else {
                text.extend([format!(" → {} {}", step.what, self.short(&step.name))]);
            }
        }
        text
    }

    fn short(&self, name: &str) -> String {
        match name.split_once(':') {
            Some((algorithm, _)) if !self.all => format!("{algorithm}:{}", truncate_id(name)),
            _ => printable(name),
        }
    }

    fn outlook(&self) -> String {
        match &self.answer.outlook {
            Outlook::Garbage if self.answer.kind == "unknown" => {
                "Nothing in the store explains it: the next `gc` moves it to the trash and deletes it.\n"
                    .to_owned()
            }
            Outlook::Garbage => "Nothing keeps it: the next `gc` deletes it.\n".to_owned(),
            Outlook::Until(at) => format!(
                "A pull may go on with it: `gc` deletes it after {}, and `gc --interrupted` now.\n",
                time::minute(*at)
            ),
            Outlook::Running => "A command that is running needs it.\n".to_owned(),
            Outlook::Used(by) => {
                format!("Nothing in the store explains it, and yet it stays: {}.\n", printable(by))
            }
            Outlook::Own => "Every store has it; nothing deletes it.\n".to_owned(),
            Outlook::Kept(eviction) => {
                let mut out = String::new();
                if eviction.unused {
                    let last_use = eviction.last_use.unwrap_or(0);
                    if eviction.dangling {
                        out.push_str("`image prune` and `gc --dangling` take it: its image has no name.\n");
                    }
                    out.extend([format!(
                        "`image prune -a` and `gc --all` take it: nothing uses it; last use {}.\n",
                        lower(&time::ago(last_use, self.now))
                    )]);
                    out.extend([format!(
                        "`gc --unused-for 30d` takes it from {} on.\n",
                        time::minute(last_use.saturating_add(30 * 86_400))
                    )]);
                } else if self.answer.kind == CONTAINER {
                    out.push_str(
                        "No `gc` takes a container: `rm` removes it, and `container prune` unless it is mounted.\n",
                    );
                } else {
                    out.push_str(&self.refusal("`gc --all` does not take it", &eviction.stays));
                }
                if let Some(verdict) = &eviction.policy {
                    out.push_str(&self.verdict(verdict));
                }
                out
            }
        }
    }

    fn verdict(&self, verdict: &Verdict) -> String {
        let only = match (self.watermark, self.policy.and_then(|policy| policy.goal)) {
            (Some((high, low)), _) => {
                format!(
                    " when {high} % of the filesystem are in use and if it is needed to come down to {low} %"
                )
            }
            _ => String::new(),
        };
        match verdict {
            Verdict::Now => format!("The policy takes it{}.\n", if only.is_empty() { " now" } else { &only }),
            Verdict::At(at) => format!("The policy takes it from {} on{only}.\n", time::minute(*at)),
            Verdict::Part { blobs, trees, size } => format!(
                "The policy leaves it, and takes {} of it{only}: {}.\n",
                human_size4(size.allocated),
                blobs_and_trees(*blobs, *trees)
            ),
            Verdict::Never(_) if self.policy.is_some_and(|policy| policy.scope == Scope::Garbage) => {
                "The policy takes no images.\n".to_owned()
            }
            Verdict::Never(stays)
                if stays.is_empty() && self.policy.is_some_and(|policy| policy.evict.is_some()) =>
            {
                "The policy leaves it, and takes nothing of it.\n".to_owned()
            }
            Verdict::Never(stays) => self.refusal("The policy does not take it", stays),
        }
    }

    fn refusal(&self, what: &str, stays: &[(Vec<String>, Vec<Stays>)]) -> String {
        if stays.is_empty() {
            return format!("{what}: it is not kept by names alone.\n");
        }
        let mut out = format!("{what}:\n");
        let limit = if self.all { usize::MAX } else { SHOWN };
        for (names, reasons) in stays.iter().take(limit) {
            let names = listed(names.iter().map(|name| printable(&familiar(name))), self.all);
            let reasons: Vec<String> = reasons.iter().map(|stays| reason(stays, self.now)).collect();
            out.extend([format!("  {names}: {}\n", reasons.join("; "))]);
        }
        if stays.len() > limit {
            out.extend([format!("  and {} others\n", stays.len() - limit)]);
        }
        out
    }
}

fn blobs_and_trees(blobs: usize, trees: usize) -> String {
    let count = |number: usize, what: &str| {
        (number > 0).then(|| format!("{number} {what}{}", if number == 1 { "" } else { "s" }))
    };
    let counts = [count(blobs, "blob"), count(trees, "tree")];
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Several, of which only the first are named.
fn listed(texts: impl ExactSizeIterator<Item = String>, all: bool) -> String {
    let count = texts.len();
    let limit = if all { usize::MAX } else { NAMES };
    let mut shown: Vec<String> = texts.take(limit).collect();
    if count > limit {
        shown.push(format!("{} others", count - limit));
    }
    shown.join(", ")
}

/// Without a capital letter, as it stands within a sentence.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

fn freed_text(freed: &FreedBy, all: bool) -> String {
    let names: Vec<String> = freed.names.iter().map(|name| printable(name)).collect();
    let mut out = format!("Removing {} frees {}.\n", names.join(", "), human_size4(freed.freed().allocated));
    for object in &freed.objects {
        let size = if object.size.allocated > 0 {
            format!(" ({})", human_size4(object.size.allocated))
        } else {
            String::new()
        };
        out.extend([format!("  {} {}{size}\n", object.kind, printable(&object.name))]);
    }
    if !freed.stays.is_empty() {
        out.push_str("What it has in common with others stays:\n");
        for staying in &freed.stays {
            out.extend([format!("  {}\n", staying_line(staying, all))]);
        }
    }
    out
}

fn staying_line(staying: &Staying, all: bool) -> String {
    let what = if staying.count == 1 { "blob or tree" } else { "blobs and trees" };
    let keepers = listed(staying.keepers.iter().map(|keeper| printable(keeper)), all);
    format!("{} in {} {what} because of {keepers}", human_size4(staying.size.allocated), staying.count)
}

fn json(answer: &Answer) -> Json {
    let chains: Vec<Json> = answer
        .chains
        .iter()
        .map(|chain| {
            let keepers: Vec<Json> = chain
                .keepers
                .iter()
                .map(|keeper| json!({ "Root": keeper.text, "ExpiresAt": keeper.expires_at }))
                .collect();
            let steps: Vec<Json> =
                chain.steps.iter().map(|step| json!({ "What": step.what, "Name": step.name })).collect();
            json!({ "Roots": keepers, "Objects": steps })
        })
        .collect();
    json!({
        "Kind": answer.kind,
        "Name": answer.name,
        "MediaType": answer.media_type,
        "Apparent": answer.size.map(|size| size.apparent),
        "Allocated": answer.size.map(|size| size.allocated),
        "StoredAt": answer.created_at,
        "File": answer.file.as_ref().map(|file| file.display().to_string()),
        "Ways": chains,
        "MoreWays": answer.more,
        "Outlook": outlook_json(&answer.outlook),
    })
}

fn outlook_json(outlook: &Outlook) -> Json {
    let stays = |stays: &[(Vec<String>, Vec<Stays>)]| -> Vec<Json> {
        let now = Timestamp::now().as_second();
        let row = |(names, reasons): &(Vec<String>, Vec<Stays>)| {
            let names: Vec<String> = names.iter().map(|name| familiar(name)).collect();
            let reasons: Vec<String> = reasons.iter().map(|stays| reason(stays, now)).collect();
            json!({ "Names": names, "Reasons": reasons })
        };
        stays.iter().map(row).collect()
    };
    match outlook {
        Outlook::Garbage => json!({ "Is": "garbage" }),
        Outlook::Until(at) => json!({ "Is": "resumable", "Until": at }),
        Outlook::Running => json!({ "Is": "running" }),
        Outlook::Used(by) => json!({ "Is": "used", "By": by }),
        Outlook::Own => json!({ "Is": "own" }),
        Outlook::Kept(eviction) => json!({
            "Is": "kept",
            "Dangling": eviction.dangling,
            "Unused": eviction.unused,
            "LastUse": eviction.last_use,
            "Stays": stays(&eviction.stays),
            "Policy": eviction.policy.as_ref().map(|verdict| match verdict {
                Verdict::Now => json!({ "Takes": true, "From": null, "Stays": [] }),
                Verdict::At(at) => json!({ "Takes": false, "From": at, "Stays": [] }),
                Verdict::Part { blobs, trees, size } => json!({
                    "Takes": false, "From": null, "Stays": [],
                    "Part": { "Blobs": blobs, "Trees": trees, "Allocated": size.allocated },
                }),
                Verdict::Never(why) => json!({ "Takes": false, "From": null, "Stays": stays(why) }),
            }),
        }),
    }
}

fn freed_json(freed: &FreedBy) -> Json {
    let objects = freed.objects.iter().map(|object| {
        json!({ "Kind": object.kind, "Name": object.name, "Apparent": object.size.apparent, "Allocated": object.size.allocated })
    });
    let stays = freed.stays.iter().map(|staying| {
        json!({ "Roots": staying.keepers, "Count": staying.count, "Apparent": staying.size.apparent, "Allocated": staying.size.allocated })
    });
    json!({
        "Names": freed.names,
        "Freed": freed.freed().allocated,
        "Objects": objects.collect::<Vec<_>>(),
        "Stays": stays.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
