//! IDs and names of containers.

use std::fmt::Write as _;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Error, Result};

/// What a container is like when nobody says how it is called.
const QUALITIES: &[&str] = &[
    "able", "agile", "amber", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever",
    "cosy", "crisp", "curious", "daring", "deft", "eager", "early", "easy", "fair", "fast", "fine", "firm",
    "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble",
    "jolly", "keen", "kind", "lively", "loyal", "lucky", "mellow", "merry", "mild", "neat", "nimble",
    "noble", "patient", "plucky", "polite", "proud", "quick", "quiet", "rapid", "ready", "robust", "sharp",
    "silent", "sleek", "smart", "solid", "steady", "stout", "sunny", "swift", "tidy", "trusty", "upbeat",
    "vivid", "warm", "wise", "witty", "zesty",
];

/// What it is: things that hold things.
const THINGS: &[&str] = &[
    "amphora",
    "barge",
    "barrel",
    "basin",
    "basket",
    "beaker",
    "bottle",
    "bowl",
    "box",
    "bucket",
    "cabin",
    "canister",
    "carafe",
    "cargo",
    "cart",
    "casket",
    "cask",
    "chest",
    "churn",
    "coffer",
    "crate",
    "creel",
    "cup",
    "dinghy",
    "drawer",
    "drum",
    "ferry",
    "flask",
    "freighter",
    "goblet",
    "hamper",
    "hold",
    "hull",
    "jar",
    "jug",
    "keg",
    "kettle",
    "ladle",
    "locker",
    "lorry",
    "mug",
    "pail",
    "pallet",
    "pannier",
    "parcel",
    "pitcher",
    "pouch",
    "punnet",
    "purse",
    "rack",
    "raft",
    "sack",
    "satchel",
    "shelf",
    "silo",
    "skiff",
    "sledge",
    "tank",
    "tankard",
    "tin",
    "tray",
    "trough",
    "trunk",
    "tub",
    "urn",
    "vase",
    "vat",
    "vessel",
    "wagon",
    "wallet",
];

fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())
            .map_err(|errno| Error::Random { source: errno.into() })?;
    }
    Ok(bytes)
}

/// A new ID: 64 hexadecimal digits. Docker's rule holds that the first twelve are no number, so that nobody takes
/// them for one.
pub(super) fn new_id() -> Result<String> {
    loop {
        let mut id = String::with_capacity(64);
        for byte in random_bytes::<32>()? {
            // Writing to a string does not fail.
            let _written = write!(id, "{byte:02x}");
        }
        if !id.bytes().take(12).all(|digit| digit.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// A name such as `brave_barrel`. With many containers a number makes it rarer, so that a free one is found soon.
pub(super) fn random() -> Result<String> {
    let [first, second, third, fourth] = random_bytes::<4>()?;
    let quality = QUALITIES[usize::from(first) % QUALITIES.len()];
    let thing = THINGS[usize::from(second) % THINGS.len()];
    let number = u16::from_le_bytes([third, fourth]) % 1000;
    Ok(format!("{quality}_{thing}{number}"))
}

/// Docker's rule: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, and no longer than a file name.
pub(super) fn check(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && (2..=255).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::BadContainerName { name: name.chars().take(300).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_docker() {
        for name in ["ab", "a1", "web.1", "A_b-c", "9x", &"x".repeat(255)] {
            check(name).unwrap();
        }
        for name in ["", "a", "-ab", ".ab", "a/b", "a b", "ä1", "a\n", &"x".repeat(256)] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for _ in 0..100 {
            check(&random().unwrap()).unwrap();
        }
    }

    #[test]
    fn ids_are_different_and_no_numbers() {
        let (one, two) = (new_id().unwrap(), new_id().unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, two);
        assert!(one[..12].parse::<u64>().is_err());
    }
}
