//! The page in a real browser.

mod samples;

use std::fs;

use layerstore_testkit::chromium::Chromium;
use layerstore_testkit::require;
use serde_json::{Value, json};

use super::*;

/// A page that is shown.
struct Shown {
    browser: Chromium,
    _dir: tempfile::TempDir,
}

impl Shown {
    /// Shows a picture, unless tests with a browser are left out.
    fn new(picture: &Picture) -> Option<Self> {
        if !require::chromium() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.html");
        fs::write(&path, page(picture)).unwrap();
        let mut browser = Chromium::start(1400, 1000);
        browser.open(&path);
        Some(Self { browser, _dir: dir })
    }

    fn eval(&mut self, expression: &str) -> Value {
        self.browser.evaluate(expression)
    }

    fn text(&mut self, selector: &str) -> String {
        let all = format!("[...document.querySelectorAll({})].map((e) => e.innerText).join('|')", json!(selector));
        self.eval(&all).as_str().unwrap().to_owned()
    }

    /// Keys of the boxes that `selector` finds, sorted.
    fn boxes(&mut self, selector: &str) -> Vec<String> {
        let all = format!("[...document.querySelectorAll({})].map((e) => e.dataset.key).sort()", json!(selector));
        let keys = self.eval(&all);
        keys.as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn screenshots() {
    let Ok(dir) = std::env::var("SHOTS") else { return };
    let mut shown = Shown::new(&samples::store()).unwrap();
    let mut shot = |shown: &mut Shown, name: &str| {
        let image = shown.browser.screenshot();
        fs::write(format!("{dir}/{name}.png"), image).unwrap();
    };
    shot(&mut shown, "1-light");
    shown.browser.click("#box-l0");
    shot(&mut shown, "2-layer");
    shown.browser.click("#policies label:nth-child(3)");
    shown.browser.click("#box-i1 > .name");
    shot(&mut shown, "3-policy");
    shown.browser.prefer("prefers-color-scheme", "dark");
    shot(&mut shown, "4-dark");
    shown.browser.click("#colours label:nth-child(3)");
    shot(&mut shown, "5-sharing");
    shown.browser.resize(400, 900);
    shot(&mut shown, "6-narrow");
    println!("{:?}", shown.browser.problems());
}
