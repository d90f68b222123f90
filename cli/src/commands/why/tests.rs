use layerstore::{Eviction, Keeper, Size, Step};

use super::*;

const NOW: i64 = 1_700_000_000;

fn chain(keepers: &[(&str, Option<i64>)], detour: bool) -> Chain {
    let keeper = |(text, expires_at): &(&str, Option<i64>)| Keeper {
        text: (*text).to_owned(),
        expires_at: *expires_at,
    };
    let step = |what: &str, name: String| Step { what: what.to_owned(), name };
    Chain {
        keepers: keepers.iter().map(keeper).collect(),
        steps: vec![
            step("manifest", format!("sha256:{}", "ab".repeat(32))),
            step("layer 3 of 12", format!("sha256:{}", "cd".repeat(32))),
        ],
        detour,
    }
}

fn answer(chains: Vec<Chain>, outlook: Outlook) -> Answer {
    Answer {
        kind: "layer blob".to_owned(),
        name: "sha256:cd\x1b".to_owned(),
        media_type: Some("application/x".to_owned()),
        size: Some(Size { apparent: 1000, allocated: 4096, inodes: 1 }),
        created_at: Some(NOW - 90),
        file: None,
        chains,
        more: false,
        outlook,
    }
}

fn text(answer: &Answer, all: bool, watermark: Option<(u8, u8)>) -> String {
    Words { answer, policy: None, watermark, now: NOW, all }.text()
}

#[test]
fn ways_are_chains_that_can_be_read() {
    let names =
        ["name a", "name b", "name c", "name d", "name e", "name f", "name g"].map(|name| (name, None));
    let answer = answer(vec![chain(&names, false), chain(&[("name a", None)], true)], Outlook::Garbage);
    let expected = "\
layer blob sha256:cd  (1kB, 4.096kB on disk, application/x, stored about a minute ago)
  name a, name b, name c, name d, name e, 2 others → manifest sha256:abababababab → this: layer 3 of 12
  and 1 other way; -v shows all
Nothing keeps it: the next `gc` deletes it.
";
    assert_eq!(text(&answer, false, None), expected);
    let all = text(&answer, true, None);
    assert!(all.contains("name g → manifest sha256:abab") && all.contains(&"ab".repeat(32)), "{all}");
    assert_eq!(all.matches("→ this: ").count(), 2);
}

#[test]
fn what_ends_by_itself_says_when() {
    let lease = chain(&[("interrupted pull (lease x)", Some(NOW))], false);
    let told = text(&answer(vec![lease], Outlook::Until(NOW)), false, None);
    let at = time::minute(NOW);
    assert!(told.contains(&format!("  interrupted pull (lease x) until {at} → manifest")), "{told}");
    assert!(told.contains(&format!("deletes it after {at}, and `gc --interrupted` now")), "{told}");
}

#[test]
fn policies_say_when_or_why_not() {
    let told =
        |eviction: Eviction, watermark| text(&answer(Vec::new(), Outlook::Kept(eviction)), false, watermark);
    let free = Eviction { unused: true, dangling: true, last_use: Some(NOW - 90), ..Eviction::default() };
    let text = told(free.clone(), None);
    assert!(text.contains("`image prune` and `gc --dangling` take it"), "{text}");
    assert!(text.contains("nothing uses it; last use about a minute ago.\n"), "{text}");
    let at = |verdict| Eviction { policy: Some(verdict), ..free.clone() };
    assert!(told(at(Verdict::Now), None).ends_with("The policy takes it now.\n"));
    assert!(
        told(at(Verdict::Now), Some((85, 70))).contains("takes it when 85 % of the filesystem are in use")
    );
    assert!(told(at(Verdict::At(NOW)), None).contains(&format!("takes it from {} on.\n", time::minute(NOW))));
    let size = Size { apparent: 1000, allocated: 4096, inodes: 1 };
    let part = Verdict::Part { blobs: 1, trees: 2, size };
    assert!(
        told(at(part), None).ends_with("The policy leaves it, and takes 4.096kB of it: 1 blob, 2 trees.\n")
    );
    let none = answer(Vec::new(), Outlook::Kept(at(Verdict::Never(Vec::new()))));
    for (policy, expected) in [
        (Policy::default(), "The policy takes no images.\n"),
        (
            Policy { scope: Scope::Unused, evict: Some(layerstore::Evict::Trees), ..Policy::default() },
            "The policy leaves it, and takes nothing of it.\n",
        ),
    ] {
        let words = Words { answer: &none, policy: Some(&policy), watermark: None, now: NOW, all: false };
        assert!(words.text().ends_with(expected), "{}", words.text());
    }
    let stays =
        vec![(vec!["docker.io/library/nginx:1".to_owned()], vec![Stays::Pinned("nginx:1".to_owned())])];
    let kept = Eviction { stays: stays.clone(), policy: Some(Verdict::Never(stays)), ..Eviction::default() };
    let expected = "\
`gc --all` does not take it:
  nginx:1: nginx:1 is pinned
The policy does not take it:
  nginx:1: nginx:1 is pinned
";
    assert!(told(kept, None).ends_with(expected));
    assert!(told(Eviction::default(), None).contains("it is not kept by names alone"));
}
