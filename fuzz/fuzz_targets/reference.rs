//! Any text as reference, platform, digest and member name: what is printed means what was parsed.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use layerstore_archive::normalise_member;
use layerstore_oci::{DiffId, Digest, LayerKind, Platform, Reference, ReferenceError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(reference) = stable::<Reference>(text) {
        let familiar = reference.familiar();
        assert_eq!(familiar.parse().as_ref(), Ok(&reference), "{familiar}");
        match reference.familiar_repository().parse::<Reference>() {
            Ok(repository) => assert_eq!(repository.repository(), reference.repository()),
            // Alone, 64 hexadecimal digits are an image's ID; before a digest they are a name.
            Err(error) => assert!(matches!(error, ReferenceError::ImageId { .. }), "{error}"),
        }
        assert_eq!(format!("{}/{}", reference.domain(), reference.path()), reference.repository());
        assert!(reference.tag().is_some() || reference.digest().is_some());
        for other in [reference.without_digest(), reference.with_digest(Digest::sha256_of(b""))] {
            assert_eq!(other.to_string().parse(), Ok(other));
        }
        // A reference becomes the key of a row and a part of URLs.
        assert!(reference.to_string().bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(reference.path().split('/').all(|part| !matches!(part, "" | "." | "..")));
    }
    if let Ok(latest) = "localhost/a".parse::<Reference>()
        && let Ok(tagged) = latest.with_tag(text)
    {
        assert_eq!(tagged.to_string().parse(), Ok(tagged));
    }
    if let Some(platform) = stable::<Platform>(text) {
        assert_eq!(platform.normalised(), platform);
        assert!(platform.runs(&platform));
        assert!(platform.accepts().len() < 1000);
    }
    stable::<Digest>(text);
    stable::<DiffId>(text);
    // Only that it returns.
    let _: LayerKind = LayerKind::of(text);
    if let Some(name) = normalise_member(text.as_bytes()) {
        assert_eq!(normalise_member(name.as_bytes()).as_ref(), Some(&name));
        assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")));
    }
});

fn stable<T: FromStr + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    let printed = value.to_string();
    let again = printed.parse::<T>().ok();
    assert_eq!(again.as_ref(), Some(&value), "{text:?} is printed as {printed:?}");
    Some(value)
}
