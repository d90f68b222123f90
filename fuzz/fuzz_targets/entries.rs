//! Layers of well-formed entries that are hostile to each other.
#![no_main]

use std::io::Write as _;

use layerstore_fuzz::Item;
use layerstore_fuzz::model::Model;
use layerstore_fuzz::plan::{Plan, archive};
use layerstore_fuzz::sandbox::{Outcome, Sandbox};
use layerstore_unpack::{Error, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let sandbox = Sandbox::new(input.first().is_some_and(|checks| checks & 16 != 0));
    let plan = Plan::new(input, &sandbox.canary());
    // For whoever looks at one input.
    if std::env::var_os("LAYERSTORE_FUZZ_PRINT").is_some() {
        plan.print();
    }
    let stream = archive(&plan.items);
    let once =
        if plan.checks & 1 == 0 { sandbox.unpack_once(&stream, Some(1)) } else { sandbox.unpack(&stream) };
    if let Ok(once) = &once {
        once.assert_is(&Model::new(&plan.items, sandbox.is_privileged()));
    }
    // Where whiteouts stand among the entries makes no difference.
    if plan.checks & 2 != 0 {
        let stream = archive(&plan.whiteouts_first());
        assert_same_tree(&once, &sandbox.unpack_once(&stream, Some(1)));
    }
    // Nor does a slash before the names, as everything happens below one root.
    if plan.checks & 4 != 0 {
        let absolute = |item: &Item| {
            let mut item = item.clone();
            item.entry.path.insert(0, b'/');
            item
        };
        let items: Vec<Item> = plan.items.iter().map(absolute).collect();
        assert_same_tree(&once, &sandbox.unpack_once(&archive(&items), Some(1)));
    }
    if plan.checks & 8 != 0
        && let Ok(once) = &once
    {
        let zstd = zstd::encode_all(stream.as_slice(), 1).expect("it compresses");
        let again = sandbox.unpack_once(&zstd, Some(1)).expect("the same compressed is accepted");
        again.assert_same_tree(once);
        assert_eq!(again.stream.diff_id, once.stream.diff_id);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&stream).expect("it compresses");
        let gzip = gzip.finish().expect("it compresses");
        let digest = layerstore_unpack::digest(gzip.as_slice(), None, &Limits::default());
        assert_eq!(digest.expect("it decompresses").diff_id, once.stream.diff_id);
    }
});

fn assert_same_tree(one: &Result<Outcome, Error>, other: &Result<Outcome, Error>) {
    match (one, other) {
        (Ok(one), Ok(other)) => one.assert_same_tree(other),
        (Err(_), Err(_)) => {}
        (one, other) => {
            panic!("one failed, one did not: {:?}, {:?}", one.as_ref().err(), other.as_ref().err())
        }
    }
}
