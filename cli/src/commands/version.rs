//! `layerstore version`.

use layerstore::oci::Platform;
use serde_json::json;

use super::print_object;
use crate::args::Version;
use crate::errors::Failure;

pub(super) fn run(args: &Version) -> Result<(), Failure> {
    let platform = Platform::host();
    let version = env!("CARGO_PKG_VERSION");
    let object = json!({ "Version": version, "Platform": platform.to_string() });
    print_object(&object, args.format.as_deref(), || format!("layerstore {version} ({platform})\n"))
}
