//! What Go's JSON decoder accepts and image tools therefore write: `null` for an empty list, map
//! or string. Lists are also bounded, so that a document of the permitted size cannot expand to
//! many times its size in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Unexpected, Visitor};

/// More items than any list in a manifest or config has; containers cannot have 500 layers.
const MAX_ITEMS: usize = 16_384;

/// The default of `T` for `null`.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list; empty for `null`.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    optional_list(deserializer).map(Option::unwrap_or_default)
}

/// A list; none for `null`.
pub(crate) fn optional_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    deserializer.deserialize_any(ListVisitor(|_: &str| None))
}

/// A command: a list of strings, or one string as early Docker versions wrote it; empty for `null`.
pub(crate) fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let visitor = ListVisitor(|text: &str| Some(text.to_owned()));
    deserializer.deserialize_any(visitor).map(Option::unwrap_or_default)
}

/// Holds what turns a single string into an item, if anything does.
struct ListVisitor<T>(fn(&str) -> Option<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match (self.0)(text) {
            Some(item) => Ok(Some(vec![item])),
            None => Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == MAX_ITEMS {
                return Err(A::Error::custom(format_args!("a list has more than {MAX_ITEMS} items")));
            }
            list.push(item);
        }
        Ok(Some(list))
    }
}

/// A map of strings; empty for `null`, as are its values.
pub(crate) fn strings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map: BTreeMap<String, Option<String>> = or_default(deserializer)?;
    Ok(map.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// A set, which Go writes as a map to empty objects: `{"80/tcp": {}}`.
pub(crate) mod set {
    use super::{BTreeMap, BTreeSet, Deserializer, IgnoredAny, Serializer, or_default};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        #[expect(clippy::zero_sized_map_values, reason = "it is a map in JSON")]
        let map: BTreeMap<String, IgnoredAny> = or_default(deserializer)?;
        Ok(map.into_keys().collect())
    }

    pub(crate) fn serialize<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Empty {}
        serializer.collect_map(set.iter().map(|key| (key, Empty {})))
    }
}
