//! `layerstore limits`.

use layerstore::Setting;

use crate::args::Limits;
use crate::context::Context;
use crate::errors::Failure;
use crate::format::listing::Listing;
use crate::output::print;
use crate::template::Value;

const TABLE: &str = "table {{.Name}}\t{{.Value}}\t{{.Default}}\t{{.Meaning}}";

const TITLES: &[(&str, &str)] =
    &[("Name", "NAME"), ("Value", "VALUE"), ("Default", "DEFAULT"), ("Meaning", "MEANING")];

pub(super) fn run(context: &Context, args: &Limits) -> Result<(), Failure> {
    let listing = Listing::new(match args.format.as_deref() {
        None | Some("table") => TABLE,
        Some(format) => format,
    })?;
    let store = context.store_or_look(args.changes.is_empty())?;
    if args.changes.is_empty() {
        return print(listing.render(TITLES, &rows(&store.unpack_policy()?.settings()))?);
    }
    let changes: Vec<_> =
        args.changes.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
    let settings = store.set_unpack_policy(&changes)?.settings();
    let after: Vec<Setting> = settings
        .into_iter()
        .filter(|setting| args.changes.iter().any(|(name, _)| name == setting.name))
        .collect();
    print(listing.render(TITLES, &rows(&after))?)
}

fn rows(settings: &[Setting]) -> Vec<Value> {
    settings
        .iter()
        .map(|setting| {
            Value::fields([
                ("Default", Value::str(&setting.default)),
                ("Meaning", Value::str(setting.meaning)),
                ("Name", Value::str(setting.name)),
                ("Value", Value::str(&setting.value)),
            ])
        })
        .collect()
}
