//! Progress on standard error: bars on a terminal, a line per finished layer elsewhere, JSON for
//! programs.
//!
//! Progress is talk: whatever goes wrong in showing it is ignored, and never ends the work it shows.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use layerstore::{Event, LayerState, Privileged};
use serde_json::json;

use crate::args::ProgressForm;
use crate::format::number::human_size;
use crate::format::printable;

/// How often a layer may report bytes in JSON.
const JSON_INTERVAL: Duration = Duration::from_millis(200);

/// Shows what happens to the layers of one command. May be told from several threads at once.
pub(crate) struct Progress {
    sink: Sink,
    /// Writes to where the lines go.
    out: Box<dyn Fn(&str) + Send + Sync>,
    /// Whether to tell what is in a layer.
    details: bool,
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
    pub(crate) fn new(form: ProgressForm, quiet: bool, details: bool) -> Self {
        let sink = match form {
            _ if quiet => Sink::Silent,
            ProgressForm::None => Sink::Silent,
            ProgressForm::Json => Sink::Json,
            ProgressForm::Auto if std::io::stderr().is_terminal() => Sink::Bars(MultiProgress::new()),
            ProgressForm::Auto | ProgressForm::Plain => Sink::Plain,
        };
        Self { sink, out: Box::new(to_stderr), details, layers: Mutex::default() }
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
            Event::Unpacked { name, privileged, devices, .. } => {
                self.unpacked(&printable(name.short()), privileged, *devices);
            }
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
            self.line(&layer.json("Loading"));
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
            self.line(&layer.json("Loading"));
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
        if let (Sink::Bars(bars), Some(bar)) = (&self.sink, layer.bar.take()) {
            bar.finish_and_clear();
            bars.remove(&bar);
        }
        let text = match self.sink {
            Sink::Json => layer.json(outcome.as_str()),
            _ => layer.text(outcome),
        };
        self.line(&text);
    }

    /// What gives rights in a layer. Every system has some of it, so only programs and who asks for details are told.
    fn unpacked(&self, id: &str, privileged: &Privileged, devices: u64) {
        let paths: Vec<_> = privileged.examples.iter().map(|path| String::from_utf8_lossy(path)).collect();
        if matches!(self.sink, Sink::Json) {
            let programs = json!({
                "setId": privileged.set_id, "capabilities": privileged.capabilities, "examples": paths,
            });
            self.line(
                &json!({ "id": id, "status": "Unpacked", "privileged": programs, "devices": devices })
                    .to_string(),
            );
        } else if self.details {
            let count = |number: u64, what: &str| (number > 0).then(|| format!("{number} {what}"));
            let counts: Vec<_> = [
                count(privileged.set_id, "with set-user-ID or set-group-ID"),
                count(privileged.capabilities, "with capabilities"),
                count(devices, "device nodes"),
            ]
            .into_iter()
            .flatten()
            .collect();
            if !counts.is_empty() {
                let (first, colon) = (paths.join(", "), if paths.is_empty() { "" } else { ": " });
                self.note(&format!("layer {id} has {}{colon}{first}", counts.join(", ")));
            }
        }
    }

    /// Something worth knowing that is not an error.
    pub(crate) fn note(&self, text: &str) {
        let text = printable(text);
        match &self.sink {
            Sink::Json => self.line(&json!({ "note": text }).to_string()),
            _ => self.line(&format!("note: {text}")),
        }
    }

    /// A line that stays: it stands above the bars, so that any number of layers fits a terminal.
    fn line(&self, text: &str) {
        let text = format!("{text}\n");
        match &self.sink {
            Sink::Silent => {}
            Sink::Plain | Sink::Json => (self.out)(&text),
            Sink::Bars(bars) => bars.suspend(|| (self.out)(&text)),
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

/// Written at once, so that lines of several threads do not mix.
fn to_stderr(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
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
    use std::sync::Arc;

    use indicatif::{InMemoryTerm, ProgressDrawTarget, TermLike as _};

    use super::*;

    fn on_terminal() -> (Progress, InMemoryTerm) {
        let term = InMemoryTerm::new(6, 80);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let sink = Sink::Bars(MultiProgress::with_draw_target(target));
        let lines = term.clone();
        let out = Box::new(move |text: &str| lines.write_str(&text.replace('\n', "\r\n")).unwrap());
        (Progress { sink, out, details: false, layers: Mutex::default() }, term)
    }

    fn lines_of(sink: Sink, tell: impl FnOnce(&Progress)) -> String {
        let lines = Arc::new(Mutex::new(String::new()));
        let copy = Arc::clone(&lines);
        let out = Box::new(move |text: &str| copy.lock().unwrap().push_str(text));
        tell(&Progress { sink, out, details: false, layers: Mutex::default() });
        let lines = lines.lock().unwrap();
        lines.clone()
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
        assert!(matches!(Progress::new(ProgressForm::Json, true, false).sink, Sink::Silent));
        assert!(matches!(Progress::new(ProgressForm::None, false, false).sink, Sink::Silent));
        assert!(matches!(Progress::new(ProgressForm::Plain, false, false).sink, Sink::Plain));
        assert!(matches!(Progress::new(ProgressForm::Json, false, false).sink, Sink::Json));
    }

    /// Two layers, one of which was there, and a note.
    fn a_load(progress: &Progress) {
        progress.start(0, "b2c3d4e5f6a7", Some(34_100_000));
        progress.advance(0, 5, None);
        progress.end(1, "aaaaaaaaaaaa", Outcome::AlreadyExists);
        progress.end(0, "b2c3d4e5f6a7", Outcome::Loaded(34_100_000));
        progress.advance(0, 6, None);
        progress.note("kept");
    }

    #[test]
    fn without_a_terminal_each_layer_is_a_line() {
        let expected = "aaaaaaaaaaaa: Already exists\nb2c3d4e5f6a7: Loaded 34.1MB\nnote: kept\n";
        assert_eq!(lines_of(Sink::Plain, a_load), expected);
        assert_eq!(lines_of(Sink::Silent, a_load), "");
    }

    #[test]
    fn programs_get_an_object_a_line() {
        let expected = r#"{"id":"b2c3d4e5f6a7","status":"Loading","current":0,"total":34100000}
{"id":"b2c3d4e5f6a7","status":"Loading","current":5,"total":34100000}
{"id":"aaaaaaaaaaaa","status":"Already exists","current":0,"total":null}
{"id":"b2c3d4e5f6a7","status":"Loaded","current":34100000,"total":34100000}
{"note":"kept"}
"#;
        assert_eq!(lines_of(Sink::Json, a_load), expected);
    }
}
