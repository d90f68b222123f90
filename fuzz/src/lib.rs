//! What the fuzz targets share.
//!
//! A target is a few lines in `fuzz_targets`; `scripts/fuzz` builds and runs them all. Whatever fails panics,
//! which libFuzzer reports with the input.
//!
//! - [`sandbox`] unpacks a layer and checks all that must hold whatever the layer says.
//! - [`plan`] turns any bytes into a layer of well-formed but hostile entries.
//! - [`model`] works out in memory what such a layer should become.
//! - [`mutate`] changes archives without breaking all their checksums.
//! - [`memory`] counts what is allocated.

pub mod memory;
pub mod model;
pub mod mutate;
pub mod plan;
pub mod sandbox;

use std::io::BufRead;

use layerstore_tar::{Entry, Error, Reader};

/// An entry of an archive and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What the headers say.
    pub entry: Entry,
    /// Of a sparse file, its segments one after the other.
    pub data: Vec<u8>,
}

/// All entries up to the end or the first error.
pub fn read_all<R: BufRead>(reader: &mut Reader<R>) -> (Vec<Item>, Result<(), Error>) {
    let mut items = Vec::new();
    let result = read_into(reader, &mut items);
    (items, result)
}

fn read_into<R: BufRead>(reader: &mut Reader<R>, items: &mut Vec<Item>) -> Result<(), Error> {
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        loop {
            let more = reader.fill_data()?;
            if more.is_empty() {
                break;
            }
            data.extend_from_slice(more);
            let length = more.len();
            reader.consume_data(length);
        }
        items.push(Item { entry, data });
    }
    Ok(())
}
