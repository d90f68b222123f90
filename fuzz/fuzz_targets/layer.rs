//! Any bytes as a layer.
#![no_main]

use layerstore_fuzz::{mutate, sandbox::Sandbox};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|layer: &[u8]| {
    let sandbox = Sandbox::new(false);
    drop(sandbox.unpack(layer));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::archive(data, size, max_size, seed)
});
