//! The page in a real browser.

mod samples;
mod shown;

use std::time::{Duration, Instant};

use serde_json::json;

use super::data::{Picture, PolicyPreview, Row};
use super::page;
use crate::format::number::human_size4;
use shown::Shown;

#[test]
fn a_click_on_a_layer_shows_who_shares_it() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    shown.browser.click("#box-l0");
    assert!(shown.text("#panel").contains("Shared by 4 images"), "{}", shown.text("#panel"));
    let who = "docker.io/library/node:22|registry.example.com/shop/frontend:1.14.2|\
               registry.example.com/shop/frontend:1.13.0|debian:bookworm|shop-1|shop-2";
    assert_eq!(shown.text("#panel .links button"), who);
    assert!(shown.text("#panel").contains(&samples::store().layers[0].diff_id));
    assert_eq!(shown.boxes(".selected"), ["l0"]);
    // One of them has nothing of its own, and so no box.
    assert_eq!(shown.boxes(".related"), ["i0", "i1", "i2"]);
    let spoken = shown.text("#live");
    assert!(spoken.contains("174MB, in 4 images: docker.io/library/node:22"), "{spoken}");

    shown.browser.click("#panel [data-to=i1]");
    assert_eq!(shown.boxes(".selected"), ["i1"]);
    assert_eq!(shown.boxes(".related"), ["l0"]);
    assert!(shown.text("#panel").contains("916MB"));
    assert_eq!(shown.boxes("tr[aria-selected=true]"), ["i1"]);
    shown.is_well();
}

#[test]
fn keys_alone_lead_to_who_shares_a_layer_and_back() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    for _ in 0..20 {
        shown.browser.press("Tab");
        if shown.focus() == "map" {
            break;
        }
    }
    assert_eq!(shown.focus(), "map");
    for key in shown.arrows_to("shared") {
        shown.browser.press(&key);
    }
    assert_eq!(shown.active(), "box-shared");
    shown.browser.press("Enter");
    assert_eq!(shown.active(), "box-l1");
    assert_eq!(shown.boxes("#map > .box"), ["l0", "l1"]);
    let to = shown.arrows_to("l0");
    shown.browser.press(&to[0]);
    assert_eq!(shown.active(), "box-l0");
    shown.browser.press("Enter");
    assert!(shown.text("#panel").contains("Shared by 4 images"));
    assert_eq!(shown.text(":focus"), format!("Layer {}", &samples::store().layers[0].diff_id[7..19]));
    // All the way back.
    shown.browser.press("Escape");
    assert_eq!((shown.focus(), shown.active()), ("map".to_owned(), "box-l0".to_owned()));
    shown.browser.press("Escape");
    assert_eq!(shown.active(), "box-shared");
    shown.browser.press("Escape");
    assert_eq!(shown.active(), "");
    assert_eq!(shown.boxes(".selected, .related, .far"), [""; 0]);
    shown.is_well();
}

#[test]
fn a_link_leads_to_what_is_not_in_the_open_box() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    shown.browser.click("#box-shared > .name");
    shown.browser.click("#panel .open-it");
    assert_eq!(shown.boxes("#map > .box"), ["l0", "l1"]);
    assert_eq!(shown.active(), "box-l1");
    shown.browser.press("Enter");
    shown.browser.press("Tab");
    shown.browser.press("Enter");
    assert!(shown.text(":focus").contains("postgres:17"), "{}", shown.text(":focus"));
    assert_eq!(shown.active(), "box-i3");
    assert_eq!(shown.boxes(".related"), ["l1"]);
    shown.browser.press("Escape");
    shown.browser.press("Escape");
    assert_eq!((shown.focus(), shown.active()), ("map".to_owned(), String::new()));
    shown.is_well();
}

#[test]
fn arrows_reach_every_box_of_a_level() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    for key in shown.boxes("[aria-level=\"1\"]") {
        assert!(!shown.arrows_to(&key).is_empty() || shown.active() == format!("box-{key}"), "{key}");
    }
    shown.browser.click("#box-l1");
    assert_eq!(shown.active(), "box-l1");
    for key in shown.boxes("[aria-level=\"2\"]") {
        assert!(!shown.arrows_to(&key).is_empty() || shown.active() == format!("box-{key}"), "{key}");
    }
}

#[test]
fn every_box_says_what_it_is() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    let bare = "[...document.querySelectorAll('.box')].filter((box) => !box.getAttribute('aria-label') || \
                box.getAttribute('role') !== 'treeitem' || box.parentElement.closest('[role=group], [role=tree]') === null).length";
    assert_eq!(shown.eval(bare), 0);
    let label = shown.eval("document.getElementById('box-l0').getAttribute('aria-label')");
    let diff_id = samples::store().layers[0].diff_id[7..19].to_owned();
    assert_eq!(label, format!("layer, {diff_id}, 174MB, shared by 4 images"));
}

#[test]
fn keys_are_explained_and_find_is_one_key_away() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    shown.browser.press("?");
    assert_eq!(shown.eval("document.getElementById('keys').open"), true);
    shown.browser.press("Escape");
    assert_eq!(shown.eval("document.getElementById('keys').open"), false);
    shown.browser.press("/");
    assert_eq!(shown.focus(), "search");
    shown.browser.enter("POSTGRES");
    assert_eq!(shown.text("tbody th button"), "postgres:17");
    assert!(shown.text("caption").contains("1 image of 8"));
    let near = shown.boxes("#map > .box:not(.far)");
    // Itself and the layers it shares.
    assert_eq!(near, ["i3", "shared"]);
    shown.browser.press("Enter");
    assert_eq!(shown.active(), "box-i3");
    shown.is_well();
}

#[test]
fn a_policy_marks_what_would_go_and_says_how_much() {
    let mut picture = samples::store();
    picture.layers[1].containers = 0;
    let both = PolicyPreview {
        command: "layerstore rmi both".to_owned(),
        freed: 123_400_000,
        images: vec![3, 4],
        ..PolicyPreview::default()
    };
    picture.policies.push(both);
    let Some(mut shown) = Shown::new(&picture) else { return };
    assert_eq!(shown.boxes(".box.goes"), [""; 0]);
    // The third; before it is "nothing".
    shown.browser.click("#policies label:nth-child(4)");
    let gone = "g0 g1 garbage i2 i4 i5 l10 l13 l14 l15 l16 l17 l7 l8 l9 loose";
    assert_eq!(shown.boxes(".box.goes").join(" "), gone);
    assert!(shown.text("#figures").contains("1.94GB"), "{}", shown.text("#figures"));
    assert!(shown.text("#figures").contains("7.06GB then"), "5.12 and 1.94");
    assert!(shown.text("#live").contains("1.94GB freed, 3 images would go"));
    let label = shown.eval("document.getElementById('box-i4').getAttribute('aria-label')");
    assert!(label.as_str().unwrap().ends_with("would go"), "{label}");
    // A layer goes when all who have it do.
    shown.browser.click("#policies label:nth-child(6)");
    assert!(shown.boxes(".box.goes").contains(&"l1".to_owned()));
    assert!(shown.text("#figures").contains("123.4MB"));
    shown.browser.click("#policies label:nth-child(1)");
    assert_eq!(shown.boxes(".box.goes"), [""; 0]);
    shown.is_well();
}

#[test]
fn areas_are_as_the_bytes() {
    let picture = samples::store();
    let Some(mut shown) = Shown::new(&picture) else { return };
    let size = |key: &str| {
        let index = key[1..].parse().unwrap_or_default();
        let layer = |i: usize| picture.layers[i].blob_bytes + picture.layers[i].tree_bytes;
        let own = |i: &usize| picture.layers[*i].images.len() == 1;
        match key {
            "shared" => layer(0) + layer(1),
            "loose" => layer(10),
            "containers" => picture.containers.iter().map(|c| c.bytes).sum(),
            "garbage" => picture.garbage.iter().map(|g| g.bytes).sum(),
            _ if key.starts_with('l') => layer(index),
            _ => picture.images[index].layers.iter().copied().filter(|i| own(i)).map(layer).sum(),
        }
    };
    for (boxes, least) in [("#map > .box", 11), ("#box-i4 .box", 3), ("#box-i0 .box", 3)] {
        let areas = shown.areas(boxes);
        assert!(areas.len() >= least, "{areas:?}");
        let all: f64 = areas.iter().map(|(_, area)| area).sum();
        let total: u64 = areas.iter().map(|(key, _)| size(key)).sum();
        for (key, area) in areas {
            #[expect(clippy::cast_precision_loss, reason = "within 1 %")]
            let off = (area / all) / (size(&key) as f64 / total as f64);
            assert!((0.99..1.01).contains(&off), "{key}: {off}");
        }
    }
    // By blobs alone, what has only a tree or is no layer has no box.
    shown.browser.click("#modes label:nth-of-type(3)");
    let boxes = shown.boxes("#map > .box");
    assert!(!boxes.contains(&"containers".to_owned()) && boxes.contains(&"shared".to_owned()), "{boxes:?}");
    assert!(shown.text("#trail").contains("1.361GB"), "{}", shown.text("#trail"));
}

/// Adds a box of each colour, as a layer with a blob has it.
const EVERY_TONE: &str =
    "for (const tone of 'a0 a1 a2 a3 a4 a5 s0 s1 s2 s3 container garbage mixed'.split(' ')) {
    const [box, blob, name] = ['div', 'div', 'span'].map((tag) => document.createElement(tag));
    [box.className, blob.className, name.className, name.textContent] = ['box', 'blob', 'name', tone];
    box.dataset.tone = tone;
    box.append(blob, name);
    document.getElementById('map').append(box);
}";

#[test]
fn light_and_dark_can_both_be_read() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    let ground = "getComputedStyle(document.body).backgroundColor";
    let mut grounds = Vec::new();
    for theme in ["light", "dark"] {
        // Without motion no colour is on its way to another.
        shown.browser.prefer(&[("prefers-color-scheme", theme), ("prefers-reduced-motion", "reduce")]);
        shown.show(&samples::store());
        grounds.push(shown.eval(ground));
        shown.eval(EVERY_TONE);
        let found = shown.eval(include_str!("tests/contrast.js"));
        assert_eq!(found["bad"], json!([]), "{theme}");
        for selector in
            ["#box-l0", "#policies label:nth-child(3)", "#colours label:nth-of-type(2)", "#box-i1 > .name"]
        {
            shown.browser.click(selector);
            let found = shown.eval(include_str!("tests/contrast.js"));
            assert!(found["seen"].as_u64().unwrap() > 100, "{found}");
            assert_eq!(found["bad"], json!([]), "{theme} after {selector}");
        }
    }
    assert_ne!(grounds[0], grounds[1]);
    // A person may want it otherwise: the button goes from auto (dark now) to light.
    shown.browser.click("#theme");
    assert_eq!(shown.eval(ground), grounds[0]);
    shown.browser.click("#theme");
    assert_eq!(shown.eval(ground), grounds[1]);
    shown.is_well();
}

#[test]
fn the_list_is_sorted_by_any_column() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    assert_eq!(shown.boxes("tbody tr").len(), 8);
    let first = "document.querySelector('tbody tr').dataset.key";
    assert_eq!(shown.eval(first), "i4", "what frees most comes first");
    shown.browser.click("[data-sort=used]");
    assert_eq!(shown.eval(first), "i0");
    shown.browser.press("Enter");
    assert_eq!(shown.eval(first), "i6", "never");
    assert_eq!(shown.text("[aria-sort=ascending]").trim(), "Last used");
    shown.browser.click("tbody tr:nth-child(1) button");
    assert!(shown.text("#panel h2").contains("debian:bookworm"));
    shown.is_well();
}

#[test]
fn names_of_strangers_do_nothing() {
    let Some(mut shown) = Shown::new(&samples::hostile()) else { return };
    let evil = samples::EVIL;
    for selector in
        ["#box-l0", "#box-i0", "#box-i1", "#box-c0", "#box-g0", "#policies label:nth-child(2)", "#box-shared"]
    {
        shown.browser.click(selector);
        assert_eq!(shown.eval("String(window.pwned)"), "undefined", "{selector}");
    }
    let strange = "document.querySelectorAll('img, iframe, svg, object, a[href]:not(.skip), [onerror], [onclick], [style*=url]').length";
    assert_eq!(shown.eval(strange), 0);
    // What could turn around the text behind it is shown as its number.
    let turned = "(document.documentElement.innerText.match(/[\\0-\\x08\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]/g) ?? []).length";
    assert_eq!(shown.eval(turned), 0);
    let evil = evil.replace('\u{0}', "\\u0000").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let evil = evil.replace('\u{202e}', "\\u202e");
    assert_eq!(shown.eval("document.getElementById('root').textContent"), evil);
    assert_eq!(shown.eval("document.querySelectorAll('script').length"), 2);
    let names = shown.eval("document.querySelector('tbody th').textContent");
    assert!(names.as_str().unwrap().contains(&evil), "{names}");
    shown.is_well();
}

#[test]
fn nothing_but_the_script_of_the_page_runs() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    shown.eval(
        "const added = document.createElement('script'); added.textContent = 'window.added = 1'; document.body.append(added);",
    );
    assert_eq!(shown.eval("String(window.added)"), "undefined");
    let fetched = shown.eval("fetch('http://127.0.0.1:9/').then(() => 'fetched', () => 'refused')");
    assert_eq!(fetched, "refused");
    assert!(!shown.browser.problems().is_empty(), "what the policy refuses is reported");
}

#[test]
fn a_store_of_a_thousand_images_is_shown_at_once() {
    let (Some(mut shown), picture) = (Shown::new(&samples::store()).map(Box::new), samples::large(1000, 10))
    else {
        return;
    };
    assert_eq!((picture.images.len(), picture.layers.len()), (1000, 10_000));
    let (before, start) = (shown.browser.busy(), Instant::now());
    shown.show(&picture);
    // What the page does; the clock would also count what other tests do meanwhile.
    let took = shown.browser.busy().saturating_sub(before);
    println!("{took:?} of work, shown after {:?}, {} boxes", start.elapsed(), shown.boxes(".box").len());
    assert!(!took.is_zero() && took < Duration::from_secs(2), "{took:?}");
    assert!(shown.boxes(".box").len() < 6000);
    shown.browser.click("#box-i0");
    assert!(shown.text("#panel").contains("10 layers"));
    shown.is_well();
}

#[test]
fn what_is_too_small_is_gathered_and_opens() {
    let mut picture = samples::large(3000, 1);
    for layer in &mut picture.layers[10..] {
        layer.blob_bytes = 4096;
        layer.tree_bytes = 4096;
    }
    let Some(mut shown) = Shown::new(&picture) else { return };
    let boxes = shown.boxes("#map > .box");
    assert_eq!(boxes.len(), 201, "so many, and one for the rest");
    shown.browser.click("[data-key=\"more:root\"]");
    assert!(shown.text("#panel").contains("2,800 more"), "{}", shown.text("#panel h2"));
    shown.eval("document.getElementById('map').focus()");
    shown.browser.press("Enter");
    // There is room for all of these.
    assert_eq!(shown.boxes("#map > .box").len(), 2800);
    assert_eq!(shown.text("#trail button"), "Everything");
    shown.browser.press("Escape");
    assert_eq!(shown.active(), "box-more:root");
    shown.is_well();
}

#[test]
fn an_empty_store_has_a_page() {
    let Some(mut shown) = Shown::new(&Picture::default()) else { return };
    assert!(shown.text("#map").contains("Nothing here"));
    shown.eval("document.getElementById('map').focus()");
    for key in ["ArrowLeft", "Home", "Enter", "Escape", "End"] {
        shown.browser.press(key);
    }
    shown.is_well();
}

#[test]
fn sizes_are_written_as_docker_does() {
    let sizes = [0, 1, 999, 1000, 1023, 999_949, 999_950, 999_999, 1_234_567, 123_450_000_000, 1 << 53];
    let row = |&allocated: &u64| Row { allocated, ..Row::default() };
    let picture = Picture { rows: sizes.iter().map(row).collect(), ..Picture::default() };
    let Some(mut shown) = Shown::new(&picture) else { return };
    let expected: Vec<String> = sizes.iter().map(|&size| human_size4(size)).collect();
    assert_eq!(shown.text("#kinds b"), expected.join("|"));
}

#[test]
fn what_could_end_the_data_is_escaped() {
    let html = page(&samples::hostile());
    assert_eq!(html.matches("</script").count(), 2);
    assert_eq!(html.matches("<script").count(), 2);
    let (_, rest) = html.split_once("application/json\">").unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    assert!(!data.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{data}");
    let read: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(read["root"], samples::EVIL);
}

#[test]
#[ignore = "writes pictures for a person to look at: set LAYERSTORE_SCREENSHOTS to a folder"]
fn screenshots() {
    let Some(mut shown) = Shown::new(&samples::store()) else { return };
    shown.shot("light");
    shown.browser.click("#box-l0");
    shown.shot("layer");
    shown.browser.click("#policies label:nth-child(3)");
    shown.shot("policy");
    shown.browser.click("#box-i1 > .name");
    shown.browser.prefer(&[("prefers-color-scheme", "dark"), ("prefers-reduced-motion", "reduce")]);
    shown.shot("dark");
    shown.browser.click("#colours label:nth-of-type(2)");
    shown.browser.resize(400, 900);
    shown.shot("narrow");
    shown.browser.resize(1400, 1000);
    shown.browser.click("#box-shared > .name");
    shown.browser.click(".open-it");
    shown.shot("open");
    shown.show(&samples::large(1000, 10));
    // Its list is long.
    shown.eval("document.querySelector('.list').hidden = true");
    shown.browser.click("#policies label:nth-child(2)");
    shown.shot("large");
    shown.browser.prefer(&[("prefers-color-scheme", "light"), ("prefers-reduced-motion", "reduce")]);
    shown.browser.click("#box-i7");
    shown.shot("large-light");
    shown.browser.press("?");
    shown.shot("keys");
    shown.show(&samples::hostile());
    shown.browser.click("#box-l0");
    shown.shot("hostile");
}
