//! Which images a list shows.

use layerstore::oci::{NamePattern, Reference};
use layerstore::{Error, ImageSummary};

use crate::args::Filter;
use crate::errors::Failure;

/// The images that fit the pattern and the filters. As in Docker, one of several patterns or moments
/// must fit, and all of several labels.
pub(super) fn select(
    images: Vec<ImageSummary>,
    pattern: Option<&str>,
    filters: &[Filter],
) -> Result<Vec<ImageSummary>, Failure> {
    let mut patterns: Vec<NamePattern> = pattern.into_iter().map(NamePattern::new).collect();
    let mut others = Vec::new();
    for filter in filters {
        match filter {
            Filter::Reference(pattern) => patterns.push(pattern.clone()),
            Filter::Dangling(dangling) => others.push(Condition::Dangling(*dangling)),
            Filter::Label(key, value) => others.push(Condition::Label(key, value.as_deref())),
            Filter::Before(name) => others.push(Condition::Before(created(&images, name)?)),
            Filter::Since(name) => others.push(Condition::After(created(&images, name)?)),
            Filter::Until(moment) => others.push(Condition::Before(*moment)),
        }
    }
    let fits = |image: &ImageSummary| {
        (patterns.is_empty() || patterns.iter().any(|pattern| has_name(image, pattern)))
            && others.iter().all(|condition| condition.holds(image))
    };
    Ok(images.into_iter().filter(fits).collect())
}

/// When the image was built that `--filter before=` or `since=` names.
fn created(images: &[ImageSummary], name: &str) -> Result<i64, Failure> {
    let reference: Option<Reference> = name.parse().ok();
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let image = images
        .iter()
        .find(|image| reference.is_some() && image.reference == reference)
        .or_else(|| images.iter().find(|image| hex.len() >= 4 && image.id.starts_with(hex)))
        .ok_or_else(|| Error::NoImage { name: name.to_owned() })?;
    Ok(image.created.unwrap_or(0))
}

enum Condition<'a> {
    Dangling(bool),
    Label(&'a str, Option<&'a str>),
    /// In seconds since 1970.
    Before(i64),
    After(i64),
}

impl Condition<'_> {
    fn holds(&self, image: &ImageSummary) -> bool {
        match self {
            Self::Dangling(dangling) => image.reference.is_none() == *dangling,
            Self::Label(key, value) => match (image.labels.get(*key), value) {
                (Some(found), Some(value)) => found.as_str() == Some(value),
                (found, None) => found.is_some(),
                (None, Some(_)) => false,
            },
            // What does not say when it was built is neither older nor newer than anything.
            Self::Before(moment) => image.created.is_some_and(|created| created < *moment),
            Self::After(moment) => image.created.is_some_and(|created| created > *moment),
        }
    }
}

fn has_name(image: &ImageSummary, pattern: &NamePattern) -> bool {
    image.reference.as_ref().is_some_and(|name| pattern.fits(name))
}

#[cfg(test)]
pub(super) mod tests {
    use layerstore::oci::Digest;
    use serde_json::json;

    use super::*;

    fn image(name: Option<&str>, fill: &str, created: Option<i64>, size: u64, label: &str) -> ImageSummary {
        let digest = |fill: &str| format!("sha256:{}", fill.repeat(64)).parse::<Digest>().unwrap();
        ImageSummary {
            reference: name.map(|name| name.parse().unwrap()),
            id: digest(fill),
            target: digest("9"),
            platforms: vec!["linux/amd64".to_owned()],
            created,
            updated_at: 0,
            pulled_at: None,
            last_used_at: created,
            pinned: fill == "a",
            size,
            labels: json!({ "kind": label }).as_object().cloned().unwrap(),
            is_image: true,
        }
    }

    /// Three images, built at 1704067200, an hour before that, and nobody knows when.
    pub(in super::super) fn images() -> Vec<ImageSummary> {
        vec![
            image(Some("localhost/app:1"), "a", Some(1_704_067_200), 187_450_000, "app"),
            image(Some("nginx"), "b", Some(1_704_063_600), 5, "web"),
            image(None, "c", None, 0, "app"),
        ]
    }

    fn selected(pattern: Option<&str>, filters: &[&str]) -> String {
        let filters: Vec<Filter> =
            filters.iter().map(|text| crate::args::parse_filter(text).unwrap()).collect();
        let images = select(images(), pattern, &filters).unwrap();
        images.iter().map(|image| image.id.hex()[..1].to_owned()).collect()
    }

    #[test]
    fn without_conditions_all_are_shown() {
        assert_eq!(selected(None, &[]), "abc");
    }

    #[test]
    fn names_are_matched_as_people_write_them() {
        for pattern in
            ["nginx", "nginx:latest", "ng*", "*:latest", "docker.io/library/nginx", "docker.io/*/nginx:l*"]
        {
            assert_eq!(selected(Some(pattern), &[]), "b", "{pattern}");
        }
        assert_eq!(selected(Some("localhost/*"), &[]), "a");
        assert_eq!(selected(Some("*"), &[]), "b", "a star ends at a slash");
        assert_eq!(selected(Some("nginx"), &["reference=localhost/app:*"]), "ab", "one of several");
        assert_eq!(selected(Some("nope"), &[]), "");
    }

    #[test]
    fn filters_must_all_hold() {
        assert_eq!(selected(None, &["dangling=true"]), "c");
        assert_eq!(selected(None, &["dangling=false"]), "ab");
        assert_eq!(selected(None, &["label=kind"]), "abc");
        assert_eq!(selected(None, &["label=kind=app"]), "ac");
        assert_eq!(selected(None, &["label=kind=app", "dangling=false"]), "a");
        assert_eq!(selected(None, &["label=kin"]), "");
        assert_eq!(selected(None, &["before=localhost/app:1"]), "b");
        assert_eq!(selected(None, &["since=nginx"]), "a");
        assert_eq!(selected(None, &["since=bbbb"]), "a");
        assert_eq!(selected(None, &["until=1704067200"]), "b");
    }

    #[test]
    fn an_image_to_compare_with_must_exist() {
        let failure = select(images(), None, &[Filter::Before("nope".into())]).unwrap_err();
        assert_eq!(failure.sentence, "no such image: nope");
    }
}
