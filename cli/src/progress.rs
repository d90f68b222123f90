//! Progress on standard error: bars on a terminal, a line per finished layer elsewhere, JSON for
//! programs.
//!
//! Progress is talk: whatever goes wrong in showing it is ignored, and never ends the work it shows.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use layerstore::{Event, LayerState};
use serde_json::json;

use crate::args::ProgressForm;
use crate::format::number::human_size;
use crate::format::printable;

/// How often a layer may report bytes in JSON.
const JSON_INTERVAL: Duration = Duration::from_millis(200);

/// Shows what happens to the layers of one command. May be told from several threads at once.
pub(crate) struct Progress {
    sink: Sink,
    layers: Mutex<BTreeMap<usize, Layer>>,
}

enum Sink {
    Silent,
    Plain,
    Json,
    Bars(MultiProgress),
}

struct Layer {
    /// The first digits of its digest.
    id: String,
    total: Option<u64>,
    done: u64,
    ended: bool,
    bar: Option<ProgressBar>,
    reported: Option<Instant>,
}

/// How a layer came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    AlreadyExists,
    /// With the size of its blob in bytes.
    Loaded(u64),
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyExists => "Already exists",
            Self::Loaded(_) => "Loaded",
        }
    }
}

impl Progress {
    /// Chooses the form: nothing with `quiet`, else as asked for, else by what standard error is.
    pub(crate) fn new(form: ProgressForm, quiet: bool) -> Self {
        let sink = match form {
            _ if quiet => Sink::Silent,
            ProgressForm::None => Sink::Silent,
            ProgressForm::Json => Sink::Json,
            ProgressForm::Auto if std::io::stderr().is_terminal() => Sink::Bars(MultiProgress::new()),
            ProgressForm::Auto | ProgressForm::Plain => Sink::Plain,
        };
        Self { sink, layers: Mutex::default() }
    }

    /// Shows one piece of news.
    pub(crate) fn tell(&self, event: &Event) {
        match event {
            Event::Layer { index, name, state } => {
                let id = printable(name.short());
                match state {
                    LayerState::Unpacking { total } => self.start(*index, &id, *total),
                    LayerState::AlreadyExists => self.end(*index, &id, Outcome::AlreadyExists),
                    LayerState::Done { size } => self.end(*index, &id, Outcome::Loaded(*size)),
                    // A layer that waits for another process is shown when that has ended.
                    _ => {}
                }
            }
            Event::Progress { index, done, total } => self.advance(*index, *done, *total),
            Event::Note(text) => self.note(text),
            _ => {}
        }
    }

    /// Work on a layer begins. `total` is its size in bytes as far as it is known.
    fn start(&self, index: usize, id: &str, total: Option<u64>) {
        let bar = match &self.sink {
            Sink::Bars(bars) => Some(bars.add(new_bar(id, total))),
            _ => None,
        };
        let layer = Layer { id: id.to_owned(), total, done: 0, ended: false, bar, reported: None };
        if matches!(self.sink, Sink::Json) {
            line(&layer.json("Loading"));
        }
        self.locked().insert(index, layer);
    }

    /// `done` bytes of a layer have been read.
    fn advance(&self, index: usize, done: u64, total: Option<u64>) {
        let mut layers = self.locked();
        let Some(layer) = layers.get_mut(&index).filter(|layer| !layer.ended) else { return };
        layer.done = done;
        if let (Some(bar), Some(total)) = (&layer.bar, total)
            && layer.total != Some(total)
        {
            bar.set_style(bar_style());
            bar.set_length(total);
        }
        layer.total = total.or(layer.total);
        if let Some(bar) = &layer.bar {
            bar.set_position(done);
        }
        if matches!(self.sink, Sink::Json) && layer.reported.is_none_or(|at| at.elapsed() >= JSON_INTERVAL) {
            layer.reported = Some(Instant::now());
            line(&layer.json("Loading"));
        }
    }

    /// A layer is done; it need not have been started.
    fn end(&self, index: usize, id: &str, outcome: Outcome) {
        let mut layers = self.locked();
        let layer = layers.entry(index).or_insert_with(|| Layer {
            id: id.to_owned(),
            total: None,
            done: 0,
            ended: false,
            bar: None,
            reported: None,
        });
        if std::mem::replace(&mut layer.ended, true) {
            return;
        }
        if let Outcome::Loaded(size) = outcome {
            (layer.done, layer.total) = (size, Some(size));
        }
        match &self.sink {
            Sink::Silent => {}
            Sink::Plain => line(&layer.text(outcome)),
            Sink::Json => line(&layer.json(outcome.as_str())),
            Sink::Bars(bars) => {
                if let Some(bar) = layer.bar.take() {
                    bar.finish_and_clear();
                    bars.remove(&bar);
                }
                // Printed above the bars that are left, so that any number of layers fits a terminal.
                drop(bars.println(layer.text(outcome)));
            }
        }
    }

    /// Something worth knowing that is not an error.
    pub(crate) fn note(&self, text: &str) {
        let text = printable(text);
        match &self.sink {
            Sink::Silent => {}
            Sink::Plain => line(&format!("note: {text}")),
            Sink::Json => line(&json!({ "note": text }).to_string()),
            Sink::Bars(bars) => drop(bars.println(format!("note: {text}"))),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Layer>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes bars of unfinished layers off the terminal, so that an error stands alone.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Sink::Bars(bars) = &self.sink {
            drop(bars.clear());
        }
    }
}

impl Layer {
    fn text(&self, outcome: Outcome) -> String {
        match outcome {
            Outcome::Loaded(size) => format!("{}: Loaded {}", self.id, human_size(size)),
            Outcome::AlreadyExists => format!("{}: Already exists", self.id),
        }
    }

    fn json(&self, status: &str) -> String {
        json!({ "id": self.id, "status": status, "current": self.done, "total": self.total }).to_string()
    }
}

/// One line, written at once so that lines of several threads do not mix.
fn line(text: &str) {
    drop(std::io::stderr().write_all(format!("{text}\n").as_bytes()));
}

fn new_bar(id: &str, total: Option<u64>) -> ProgressBar {
    let (bar, style) = match total {
        Some(total) => (ProgressBar::new(total), bar_style()),
        None => (ProgressBar::no_length(), counter_style()),
    };
    bar.with_style(style).with_prefix(id.to_owned())
}

fn bar_style() -> ProgressStyle {
    style("{prefix}: [{wide_bar}] {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec:>11}")
        .progress_chars("=> ")
}

fn counter_style() -> ProgressStyle {
    style("{prefix}: {spinner} {decimal_bytes:>9} {decimal_bytes_per_sec:>11}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::*;

    fn on_terminal() -> (Progress, InMemoryTerm) {
        let term = InMemoryTerm::new(6, 80);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let sink = Sink::Bars(MultiProgress::with_draw_target(target));
        (Progress { sink, layers: Mutex::default() }, term)
    }

    #[test]
    fn a_bar_shows_how_far_a_layer_is() {
        let (progress, term) = on_terminal();
        progress.start(0, "0123456789ab", Some(1000));
        progress.advance(0, 500, Some(1000));
        let shown = term.contents();
        assert!(shown.starts_with("0123456789ab: [==="), "{shown}");
        assert!(shown.contains("500 B/1.00 kB"), "{shown}");
    }

    #[test]
    fn a_finished_layer_leaves_one_line_above_the_bars() {
        let (progress, term) = on_terminal();
        progress.start(0, "aaaaaaaaaaaa", Some(34_100_000));
        progress.start(1, "bbbbbbbbbbbb", None);
        progress.advance(0, 34_100_000, None);
        progress.end(0, "aaaaaaaaaaaa", Outcome::Loaded(34_100_000));
        progress.end(0, "aaaaaaaaaaaa", Outcome::Loaded(34_100_000));
        progress.end(2, "cccccccccccc", Outcome::AlreadyExists);
        progress.note("a\nb");
        progress.advance(1, 2000, None);
        let shown = term.contents();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines[..3],
            ["aaaaaaaaaaaa: Loaded 34.1MB", "cccccccccccc: Already exists", "note: a b"],
            "{shown}"
        );
        assert!(lines[3].starts_with("bbbbbbbbbbbb: ") && lines.len() == 4, "{shown}");
        drop(progress);
        assert_eq!(term.contents().lines().count(), 3);
    }

    #[test]
    fn the_form_follows_the_options() {
        assert!(matches!(Progress::new(ProgressForm::Json, true).sink, Sink::Silent));
        assert!(matches!(Progress::new(ProgressForm::None, false).sink, Sink::Silent));
        assert!(matches!(Progress::new(ProgressForm::Plain, false).sink, Sink::Plain));
        assert!(matches!(Progress::new(ProgressForm::Json, false).sink, Sink::Json));
    }

    #[test]
    fn lines_say_what_happened() {
        let layer = |done, total| Layer {
            id: "b2c3d4e5f6a7".to_owned(),
            total,
            done,
            ended: false,
            bar: None,
            reported: None,
        };
        assert_eq!(layer(0, None).text(Outcome::Loaded(34_100_000)), "b2c3d4e5f6a7: Loaded 34.1MB");
        assert_eq!(layer(5, None).text(Outcome::AlreadyExists), "b2c3d4e5f6a7: Already exists");
        assert_eq!(
            layer(5, Some(10)).json("Loading"),
            r#"{"id":"b2c3d4e5f6a7","status":"Loading","current":5,"total":10}"#
        );
    }
}
