//! `layerstore search`.

use layerstore::Layerstore;
use layerstore::oci::Reference;
use layerstore::registry::Found;

use crate::args::Search;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::printable;
use crate::output::print;
use crate::registry;
use crate::template::Value;

const TITLES: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
    ("Tag", "TAG"),
];
const TABLE: &str = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
const TAG_TABLE: &str = "table {{.Name}}\t{{.Tag}}";
/// As many as Docker lists.
const LIMIT: u32 = 25;
/// Characters of a description in the table.
const DESCRIPTION: usize = 45;

pub(super) fn run(context: &Context, args: &Search) -> Result<(), Failure> {
    let default = if args.list_tags { TAG_TABLE } else { TABLE };
    let format = args.format.as_deref().filter(|format| *format != "table").unwrap_or(default);
    let listing = Listing::new(format)?;
    let progress = context.progress();
    if args.list_tags {
        let reference: Reference = args.term.parse().map_err(layerstore::Error::from)?;
        let client = registry::client(&args.registry, [&reference])?;
        let mut tags = Layerstore::remote_tags(&client, &reference, &|event| progress.tell(&event))?;
        tags.truncate(args.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
        drop(progress);
        let name = printable(reference.familiar_repository());
        let rows: Vec<Value> = tags
            .iter()
            .map(|tag| Value::fields([("Name", Value::str(&name)), ("Tag", Value::str(printable(tag)))]))
            .collect();
        return print(listing.render(TITLES, &rows)?);
    }
    let filters = args.filter.iter().map(Filter::parse).collect::<Result<Vec<_>, _>>()?;
    let (domain, term) = split(&args.term);
    let named = format!("{domain}/search").parse::<Reference>().map_err(layerstore::Error::from)?;
    let client = registry::client(&args.registry, [&named])?;
    let limit = args.limit.unwrap_or(LIMIT);
    let mut found =
        Layerstore::remote_search(&client, named.domain(), term, limit, &|event| progress.tell(&event))?;
    drop(progress);
    found.retain(|found| filters.iter().all(|filter| filter.fits(found)));
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let rows: Vec<Value> = found.iter().map(|found| row(found, args)).collect();
    print(listing.render(TITLES, &rows)?)
}

/// The registry is what stands before the first slash, if it looks like a host, as in names of images.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (host, rest),
        _ => ("docker.io", term),
    }
}

fn row(found: &Found, args: &Search) -> Value {
    let description = printable(found.description.as_deref().unwrap_or_default());
    let short = !args.no_trunc && args.format.as_deref().is_none_or(|format| format.starts_with("table"));
    let description = match description.char_indices().nth(DESCRIPTION) {
        Some((end, _)) if short => format!("{}…", &description[..end]),
        _ => description,
    };
    let flag = |set: bool| if set { "[OK]" } else { "" };
    Value::fields([
        ("Description", Value::str(description)),
        ("IsAutomated", Value::str(flag(found.is_automated))),
        ("IsOfficial", Value::str(flag(found.is_official))),
        ("Name", Value::str(printable(&found.name))),
        ("StarCount", Value::str(found.star_count.to_string())),
    ])
}

/// Docker's filters.
#[derive(Debug, PartialEq, Eq)]
enum Filter {
    Stars(u64),
    Official(bool),
    Automated(bool),
}

impl Filter {
    fn parse((key, value): &(String, String)) -> Result<Self, Failure> {
        let wrong = || Failure::usage(format!("`{}={}` is not a filter", printable(key), printable(value)));
        match key.as_str() {
            "stars" => value.parse().map(Self::Stars).map_err(|_| wrong()),
            "is-official" => value.parse().map(Self::Official).map_err(|_| wrong()),
            "is-automated" => value.parse().map(Self::Automated).map_err(|_| wrong()),
            _ => {
                Err(wrong().hint("there is stars=NUMBER, is-official=true|false and is-automated=true|false"))
            }
        }
    }

    fn fits(&self, found: &Found) -> bool {
        match self {
            Self::Stars(least) => found.star_count >= *least,
            Self::Official(wanted) => found.is_official == *wanted,
            Self::Automated(wanted) => found.is_automated == *wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_may_stand_before_the_term() {
        assert_eq!(split("nginx"), ("docker.io", "nginx"));
        assert_eq!(split("bitnami/nginx"), ("docker.io", "bitnami/nginx"));
        assert_eq!(split("localhost:5000/a/b"), ("localhost:5000", "a/b"));
    }

    #[test]
    fn filters_are_dockers() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(Filter::parse(&pair("stars", "3")).unwrap(), Filter::Stars(3));
        assert!(Filter::parse(&pair("stars", "many")).is_err());
        assert!(Filter::parse(&pair("colour", "red")).is_err());
    }
}
