//! `layerstore images`.

mod select;
mod usage;

use jiff::Timestamp;
use layerstore::ImageSummary;
use layerstore::oci::Reference;
use usage::Usages;

use crate::args::Images;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::format::number::human_size;
use crate::format::{time, truncate_id};
use crate::output::print;
use crate::template::Value;

const TITLES: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
    ("PulledAt", "PULLED AT"),
    ("LastUsedAt", "LAST USED AT"),
    ("LastUsedSince", "LAST USED"),
    ("Pinned", "PINNED"),
];

/// Fields that Docker's rows do not have.
const OURS: [&str; 4] = [".PulledAt", ".LastUsedAt", ".LastUsedSince", ".Pinned"];

pub(super) fn run(context: &Context, args: &Images) -> Result<(), Failure> {
    let format = format(args);
    let listing = Listing::new(&format)?;
    let store = context.store_to_look()?;
    let mut images = store.images()?;
    let usages = if usage::wanted(&format) { Usages::of(&store.image_usage()?) } else { Usages::default() };
    images.retain(|image| args.all || image.is_image);
    // Docker's list begins with what was built last.
    images.sort_by_key(|image| (std::cmp::Reverse(image.created), image.reference.is_none()));
    let images = select::select(images, args.pattern.as_deref(), &args.filter)?;
    let now = Timestamp::now().as_second();
    // The zone of the machine takes a moment to find, and our own table does not show it.
    let dated = !matches!(args.format.as_deref(), None | Some("table"));
    let ours = with_ours(&format);
    let row = |image| row(image, &usages, now, !args.no_trunc, dated, ours);
    let rows: Vec<Value> = images.iter().map(row).collect();
    print(listing.render(TITLES, &rows)?)
}

/// `--format`, or the table that the other options ask for.
fn format(args: &Images) -> String {
    match args.format.as_deref() {
        None | Some("table") if args.quiet => "{{.ID}}".to_owned(),
        None | Some("table") => {
            let digest = if args.digests { "{{.Digest}}\t" } else { "" };
            let created = "{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}";
            format!("table {{{{.Repository}}}}\t{{{{.Tag}}}}\t{digest}{{{{.ID}}}}\t{created}\t{{{{.Size}}}}")
        }
        Some(format) if args.digests && format.starts_with("table") && !format.contains("{{.Digest}}") => {
            format!("{format}\t{{{{.Digest}}}}")
        }
        Some(format) => format.to_owned(),
    }
}

/// Whether rows have our own fields: not where they are printed as JSON, which is exactly Docker's.
fn with_ours(format: &str) -> bool {
    !format.contains("json") || OURS.iter().any(|field| format.contains(field))
}

/// The fields of a row, in the order of Docker's JSON, and then ours. Only where it is `dated` it has moments.
fn row(
    image: &ImageSummary,
    usages: &Usages,
    now: i64,
    truncate: bool,
    dated: bool,
    with_ours: bool,
) -> Value {
    let id = image.id.to_string();
    let reference = image.reference.as_ref();
    let or_none = |text: Option<&str>| Value::str(text.unwrap_or("<none>"));
    let digest = reference.map(|_| image.target.to_string());
    let time_of =
        |at: Option<i64>| Value::str(at.filter(|_| dated).map(time::created_at).unwrap_or_default());
    let since = image.last_used_at.map(|at| time::ago(at, now)).unwrap_or_default();
    let ours = [
        ("PulledAt", time_of(image.pulled_at)),
        ("LastUsedAt", time_of(image.last_used_at)),
        ("LastUsedSince", Value::str(since)),
        ("Pinned", Value::Bool(image.pinned)),
    ];
    let [shared, unique, containers] = usages.texts(&image.id);
    let dockers = [
        ("Containers", Value::str(containers)),
        ("CreatedAt", time_of(image.created)),
        ("CreatedSince", Value::str(image.created.map(|at| time::ago(at, now)).unwrap_or_default())),
        ("Digest", or_none(digest.as_deref())),
        ("ID", Value::str(if truncate { truncate_id(&id) } else { &id })),
        ("Repository", or_none(reference.map(Reference::familiar_repository))),
        ("SharedSize", Value::str(shared)),
        ("Size", Value::str(human_size(image.size))),
        ("Tag", or_none(reference.and_then(Reference::tag))),
        ("UniqueSize", Value::str(unique)),
    ];
    Value::fields(dockers.into_iter().chain(ours.into_iter().filter(|_| with_ours)))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &str) -> Images {
        let words = std::iter::once("layerstore").chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::Images(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn list(line: &str) -> String {
        let images = select::tests::images();
        let args = args(line);
        let format = format(&args);
        let row =
            |image| row(image, &Usages::default(), 1_704_067_260, !args.no_trunc, true, with_ours(&format));
        let rows: Vec<Value> = images.iter().map(row).collect();
        Listing::new(&format).unwrap().render(TITLES, &rows).unwrap()
    }

    #[test]
    fn the_table_is_dockers() {
        let expected = "\
REPOSITORY      TAG       IMAGE ID       CREATED              SIZE
localhost/app   1         aaaaaaaaaaaa   About a minute ago   187MB
nginx           latest    bbbbbbbbbbbb   About an hour ago    5B
<none>          <none>    cccccccccccc   N/A                  0B
";
        assert_eq!(list("images"), expected);
        let digests = list("images --digests");
        let titles: Vec<&str> = digests.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(titles, ["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID", "CREATED", "SIZE"]);
        assert!(digests.contains(&format!("sha256:{}", "9".repeat(64))), "{digests}");
    }

    #[test]
    fn quiet_prints_ids() {
        assert_eq!(list("images -q").lines().next(), Some("aaaaaaaaaaaa"));
        assert_eq!(list("images -q --no-trunc").lines().next(), Some(&*format!("sha256:{}", "a".repeat(64))));
        assert_eq!(list("images -q --format {{.Tag}}").lines().next(), Some("1"));
    }

    #[test]
    fn a_table_of_ones_own_gets_the_digest_too() {
        assert_eq!(format(&args("images --digests --format table{{.ID}}")), "table{{.ID}}\t{{.Digest}}");
        assert_eq!(format(&args("images --digests --format {{.ID}}")), "{{.ID}}");
    }

    #[test]
    fn a_template_has_fields_of_our_own() {
        let first =
            |format: &str| list(&format!("images --format {format}")).lines().next().map(str::to_owned);
        assert_eq!(first("{{.LastUsedSince}},{{.Pinned}}").as_deref(), Some("About a minute ago,true"));
        assert_eq!(first("{{.PulledAt}}").as_deref(), Some(""), "its registry need not have it");
        assert!(list("images --format table{{.LastUsedSince}}").starts_with("LAST USED\n"));
    }

    #[test]
    fn json_has_dockers_fields() {
        let expected = concat!(
            r#"{"Containers":"N/A","CreatedAt":"","CreatedSince":"","Digest":"\u003cnone\u003e","#,
            r#""ID":"cccccccccccc","Repository":"\u003cnone\u003e","SharedSize":"N/A","Size":"0B","#,
            r#""Tag":"\u003cnone\u003e","UniqueSize":"N/A"}"#
        );
        assert_eq!(list("images --format json").lines().last(), Some(expected));
    }
}
