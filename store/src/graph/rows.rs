//! Reading rows, for what loads the graph.

use layerstore_oci::Digest;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row};

use crate::blob::parse_digest;
use crate::error::{DbContext as _, Error, Result};

pub(super) fn invalid(what: &'static str, value: &str) -> Error {
    Error::InvalidRow { what, value: value.to_owned() }
}

/// Something refers to a row that is not there. Who knows what else is not.
pub(super) fn dangling(what: &'static str, name: &str) -> Error {
    Error::DanglingRow { what, name: name.to_owned() }
}

pub(super) fn each<P: Params>(
    db: &Connection,
    query: &str,
    parameters: P,
    mut row: impl FnMut(&Row<'_>) -> Result<()>,
) -> Result<()> {
    let action = "load the graph";
    let mut statement = db.prepare_cached(query).db(action)?;
    let mut rows = statement.query(parameters).db(action)?;
    while let Some(next) = rows.next().db(action)? {
        row(next)?;
    }
    Ok(())
}

pub(super) fn get<T: FromSql>(row: &Row<'_>, column: usize) -> Result<T> {
    row.get(column).db("load the graph")
}

pub(super) fn optional<'a>(row: &'a Row<'_>, column: usize) -> Result<Option<&'a str>> {
    let value = row.get_ref(column).db("load the graph")?;
    value.as_str_or_null().map_err(rusqlite::Error::from).db("load the graph")
}

pub(super) fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str> {
    let value = row.get_ref(column).db("load the graph")?;
    value.as_str().map_err(rusqlite::Error::from).db("load the graph")
}

pub(super) fn digest(row: &Row<'_>, column: usize) -> Result<Digest> {
    parse_digest(text(row, column)?)
}
