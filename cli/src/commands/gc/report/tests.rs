use layerstore::oci::NamePattern;

use super::*;

const NOW: i64 = 1_700_000_000;
const DAY: i64 = 86_400;

fn digest(fill: char) -> Digest {
    format!("sha256:{}", fill.to_string().repeat(64)).parse().unwrap()
}

fn size(allocated: u64) -> Size {
    Size { apparent: allocated, allocated, inodes: 1 }
}

fn object(kind: CollectedKind, name: &str, bytes: u64, cause: Option<Cause>) -> CollectedObject {
    CollectedObject { kind, name: name.to_owned(), size: size(bytes), cause }
}

fn name(name: &str, fill: char, reason: Reason, bytes: u64) -> RemovedName {
    RemovedName { name: name.to_owned(), id: digest(fill), reason, freed: size(bytes) }
}

fn collected() -> Collected {
    let by = |name: &str| Some(Cause::Name(name.to_owned()));
    let nginx = "docker.io/library/nginx:latest";
    Collected {
        names: vec![
            name("nginx:latest", 'a', Reason::Unused { since: NOW - 21 * DAY }, 3000),
            name("localhost/a:2", 'b', Reason::Unused { since: NOW - 90 }, 0),
            name(&digest('c').to_string(), 'd', Reason::Dangling, 500),
        ],
        objects: vec![
            object(CollectedKind::Blob, "sha256:1", 100, Some(Cause::Unreachable)),
            object(CollectedKind::Blob, "sha256:2", 1000, by(nginx)),
            object(CollectedKind::Blob, "sha256:3", 1000, by(nginx)),
            object(CollectedKind::Snapshot, "sha256:4", 0, by(nginx)),
            object(CollectedKind::Tree, "abcdefgh", 1000, by(nginx)),
            object(CollectedKind::Blob, "sha256:5", 500, by(&digest('c').to_string())),
            object(CollectedKind::Unknown, "overlay2/junk\x1b", 7, None),
        ],
        kept: vec![
            Kept {
                names: vec!["localhost/b:1".to_owned()],
                id: digest('e'),
                stays: vec![Stays::Container("web".to_owned())],
            },
            Kept {
                names: vec!["localhost/c:1".to_owned()],
                id: digest('f'),
                stays: vec![Stays::Container("db".to_owned())],
            },
            Kept {
                names: vec!["localhost/d:1".to_owned(), "localhost/d:2".to_owned()],
                id: digest('0'),
                stays: vec![
                    Stays::Pinned("localhost/d:1".to_owned()),
                    Stays::Protected("localhost/d:2".to_owned(), NamePattern::new("localhost/d:*")),
                ],
            },
        ],
        wanted: None,
    }
}

#[test]
fn names_come_first_with_what_goes_with_them() {
    let expected = "\
Untagged: nginx:latest (unused for 3 weeks, frees 3kB: 2 blobs, 1 tree)
Untagged: localhost/a:2 (unused for about a minute, frees nothing: the rest is still needed)
Deleted image: dddddddddddd (has no name, frees 500B: 1 blob)
Deleted blob: sha256:1 (100B)
Deleted unknown: overlay2/junk  (7B)
Total reclaimed space: 3.607kB
";
    assert_eq!(text(&collected(), false, false, NOW), expected);
}

#[test]
fn a_dry_run_has_the_same_lines_with_another_verb() {
    for all in [false, true] {
        let planned = text(&collected(), true, all, NOW);
        let done = planned
            .replace("Would untag:", "Untagged:")
            .replace("Would delete", "Deleted")
            .replace("Reclaimable space:", "Total reclaimed space:");
        assert_eq!(done, text(&collected(), false, all, NOW));
    }
}

#[test]
fn all_are_told_with_what_stays() {
    let text = text(&collected(), false, true, NOW);
    for line in [
        "Deleted tree: abcdefgh (1kB)",
        "Deleted snapshot: sha256:4",
        "Kept: localhost/b:1 (in use by container web)",
        "Kept: localhost/d:1, localhost/d:2 (localhost/d:1 is pinned; localhost/d:2 is protected by localhost/d:*)",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

#[test]
fn evictions_are_told_by_image() {
    let cause = |name: &str| Some(Cause::Evicted(name.to_owned()));
    let objects = vec![
        object(CollectedKind::Snapshot, "sha256:1", 0, cause("localhost/a:1")),
        object(CollectedKind::Tree, "abcdefgh", 3000, cause("localhost/a:1")),
        object(CollectedKind::Tree, "abcdefgi", 2000, cause("localhost/b:1")),
    ];
    let collected = Collected { objects, ..Collected::default() };
    let expected = "\
Would evict: localhost/a:1 (frees 3kB: 1 tree)
Would evict: localhost/b:1 (frees 2kB: 1 tree)
Reclaimable space: 5kB
";
    assert_eq!(text(&collected, true, false, NOW), expected);
}

#[test]
fn a_policy_that_touches_no_image_says_why() {
    let still = |collected: Collected| super::untouched(&Collected { names: Vec::new(), ..collected });
    let expected = "no image is touched: 2 images are in use by containers, 1 is pinned; -v names them";
    assert_eq!(still(collected()).as_deref(), Some(expected));
    assert_eq!(still(Collected { kept: Vec::new(), ..collected() }), None, "there was none to touch");
    let evicted =
        object(CollectedKind::Tree, "abcdefgh", 1, Some(Cause::Evicted("localhost/a:1".to_owned())));
    assert_eq!(still(Collected { objects: vec![evicted], ..collected() }), None);
    assert_eq!(super::untouched(&collected()), None);
    assert_eq!(still(Collected { wanted: Some(1), ..collected() }), None, "the goal says it");
}

#[test]
fn a_goal_that_was_missed_says_who_stood_in_the_way() {
    let missed = |wanted| super::missed(&Collected { wanted, ..collected() }, false);
    assert_eq!(missed(None), None);
    assert_eq!(missed(Some(3607)), None);
    let expected = "10GB were asked for, 3.607kB were freed: 2 images are in use by containers, 1 is pinned";
    assert_eq!(missed(Some(10_000_000_000)).as_deref(), Some(expected));
    let alone = Collected { wanted: Some(1), ..Collected::default() };
    assert_eq!(
        super::missed(&alone, true).as_deref(),
        Some("1B were asked for, 0B could be freed: there is no other image")
    );
}

#[test]
fn rows_count_no_byte_twice() {
    let json = |all| rows(&collected(), &Listing::new("json").unwrap(), all).unwrap();
    let lines: Vec<serde_json::Value> =
        json(false).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 10);
    let sum = |field: &str| lines.iter().map(|line| line[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("Size"), sum("Freed")), (3607, 3500));
    let first = r#"{"Type":"image","Name":"nginx:latest","ID":"sha256:"#;
    assert!(json(false).starts_with(first), "{}", json(false));
    assert_eq!(lines[0]["Since"], NOW - 21 * DAY);
    assert_eq!(json(true).lines().count(), 14);
    let template = rows(&collected(), &Listing::new("{{.Type}} {{.Reason}}").unwrap(), false).unwrap();
    assert_eq!(template.lines().next(), Some("image unused"));
}
