//! A page in a browser, and what the tests ask of it.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::Path;

use layerstore_testkit::chromium::Chromium;
use layerstore_testkit::require;
use serde_json::{Value, json};

use crate::picture::data::Picture;
use crate::picture::page;

/// For each box of the level of the selected one, where each arrow leads from there.
const NEIGHBOURS: &str = r"(() => {
  const map = document.getElementById('map');
  const start = map.getAttribute('aria-activedescendant') ?? map.querySelector('.box').id;
  const level = document.getElementById(start).getAttribute('aria-level');
  const found = {};
  for (const box of map.querySelectorAll(`.box[aria-level='${level}']`)) {
    found[box.id] = ['ArrowLeft', 'ArrowUp', 'ArrowRight', 'ArrowDown'].map((key) => {
      box.click();
      map.dispatchEvent(new KeyboardEvent('keydown', { key }));
      return [key, map.getAttribute('aria-activedescendant')];
    });
  }
  document.getElementById(start).click();
  return { start, found };
})()";

/// A page that is shown.
pub(super) struct Shown {
    pub(super) browser: Chromium,
    dir: tempfile::TempDir,
}

impl Shown {
    /// Shows a picture, unless tests with a browser are left out.
    #[track_caller]
    pub(super) fn new(picture: &Picture) -> Option<Self> {
        if !require::chromium() {
            return None;
        }
        let mut shown = Self { browser: Chromium::start(1400, 1000), dir: tempfile::tempdir().unwrap() };
        shown.show(picture);
        Some(shown)
    }

    /// Shows another picture instead.
    #[track_caller]
    pub(super) fn show(&mut self, picture: &Picture) {
        let path = self.dir.path().join("page.html");
        fs::write(&path, page(picture)).unwrap();
        self.browser.open(&path);
    }

    #[track_caller]
    pub(super) fn eval(&mut self, expression: &str) -> Value {
        self.browser.evaluate(expression)
    }

    /// What can be read in all elements that `selector` finds.
    #[track_caller]
    pub(super) fn text(&mut self, selector: &str) -> String {
        let all =
            format!("[...document.querySelectorAll({})].map((e) => e.innerText).join('|')", json!(selector));
        self.eval(&all).as_str().unwrap().to_owned()
    }

    /// Keys of the boxes or rows that `selector` finds, sorted.
    #[track_caller]
    pub(super) fn boxes(&mut self, selector: &str) -> Vec<String> {
        let all =
            format!("[...document.querySelectorAll({})].map((e) => e.dataset.key).sort()", json!(selector));
        let keys = self.eval(&all);
        keys.as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    }

    /// Areas in square pixels of the boxes that `selector` finds.
    #[track_caller]
    pub(super) fn areas(&mut self, selector: &str) -> Vec<(String, f64)> {
        let all = format!(
            "[...document.querySelectorAll({})].map((e) => {{ const {{ width, height }} = \
             e.getBoundingClientRect(); return [e.dataset.key, width * height]; }})",
            json!(selector)
        );
        serde_json::from_value(self.eval(&all)).unwrap()
    }

    /// The ID of what has the focus.
    #[track_caller]
    pub(super) fn focus(&mut self) -> String {
        self.eval("document.activeElement.id").as_str().unwrap().to_owned()
    }

    /// The ID of the box that the keys act on.
    #[track_caller]
    pub(super) fn active(&mut self) -> String {
        let id = self.eval("document.getElementById('map').getAttribute('aria-activedescendant') ?? ''");
        id.as_str().unwrap().to_owned()
    }

    /// The shortest way of arrows from the selected box to another of its level.
    #[track_caller]
    pub(super) fn arrows_to(&mut self, key: &str) -> Vec<String> {
        let neighbours = self.eval(NEIGHBOURS);
        let start: String = neighbours["start"].as_str().unwrap().to_owned();
        let found: HashMap<String, Vec<(String, String)>> =
            serde_json::from_value(neighbours["found"].clone()).unwrap();
        let mut ways = HashMap::from([(start.clone(), Vec::new())]);
        let mut next = VecDeque::from([start]);
        while let Some(at) = next.pop_front() {
            for (arrow, to) in &found[&at] {
                if !ways.contains_key(to) {
                    let way = ways[&at].iter().chain([arrow]).cloned().collect();
                    ways.insert(to.clone(), way);
                    next.push_back(to.clone());
                }
            }
        }
        ways.remove(&format!("box-{key}")).unwrap_or_else(|| panic!("no arrows lead to {key}: {found:?}"))
    }

    /// Asserts that the page has not complained, and has asked for nothing but itself.
    #[track_caller]
    pub(super) fn is_well(&mut self) {
        assert_eq!(self.browser.problems(), [Value::Null; 0]);
        let page = format!("file://{}", self.dir.path().join("page.html").display());
        assert_eq!(self.browser.requested(), [page]);
    }

    /// Writes what is shown into the folder of screenshots.
    #[track_caller]
    pub(super) fn shot(&mut self, name: &str) {
        let dir = std::env::var_os("LAYERSTORE_SCREENSHOTS").expect("LAYERSTORE_SCREENSHOTS is a folder");
        let image = self.browser.screenshot();
        fs::write(Path::new(&dir).join(format!("{name}.png")), image).unwrap();
    }
}
