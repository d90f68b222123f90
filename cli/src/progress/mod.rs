//! Progress on standard error: bars on a terminal, a line per finished layer elsewhere, JSON for
//! programs.
//!
//! Progress is talk: whatever goes wrong in showing it is ignored, and never ends the work it shows.

mod bars;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar};
use layerstore::{Event, LayerState, Privileged, PullPlan};
use serde_json::json;

use self::bars::{bar_style, new_bar, total_bar};
use crate::args::ProgressForm;
use crate::format::number::human_size;
use crate::format::printable;

/// How often a layer may report bytes in JSON.
const JSON_INTERVAL: Duration = Duration::from_millis(200);

/// What a command does with layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Load,
    Pull,
    Push,
    Save,
    Commit,
}

impl Task {
    fn done(self, size: u64) -> Outcome {
        match self {
            Self::Load => Outcome::Loaded(size),
            Self::Pull => Outcome::Pulled(size),
            Self::Push => Outcome::Pushed(size),
            Self::Save => Outcome::Saved(size),
            Self::Commit => Outcome::Committed(size),
        }
    }

    fn existed(self) -> Outcome {
        if self == Self::Push { Outcome::LayerExists } else { Outcome::AlreadyExists }
    }
}

/// Shows what happens to the layers of one command. May be told from several threads at once.
pub(crate) struct Progress {
    sink: Sink,
    /// Writes to where the lines go.
    out: Box<dyn Fn(&str) + Send + Sync>,
    /// Whether to tell what is in a layer.
    details: bool,
    task: Task,
    layers: Mutex<BTreeMap<usize, Layer>>,
    /// The bar of the whole.
    total: Mutex<Option<ProgressBar>>,
}

enum Sink {
    Silent,
    /// Nothing but notes.
    Notes,
    Plain,
    Json,
    Bars(MultiProgress),
}

struct Layer {
    /// The first digits of its digest.
    id: String,
    total: Option<u64>,
    /// Bytes that are unpacked.
    done: u64,
    /// Bytes that are downloaded, until all are.
    download: Option<u64>,
    ended: bool,
    bar: Option<ProgressBar>,
    reported: Option<Instant>,
}

impl Layer {
    fn new(id: &str, total: Option<u64>) -> Self {
        let id = id.to_owned();
        Self { id, total, done: 0, download: None, ended: false, bar: None, reported: None }
    }
}

/// How a layer came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    AlreadyExists,
    /// With the size of its blob in bytes.
    Loaded(u64),
    Pulled(u64),
    /// The registry had it.
    LayerExists,
    Mounted,
    Pushed(u64),
    Saved(u64),
    Committed(u64),
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyExists => "Already exists",
            Self::Loaded(_) => "Loaded",
            Self::Pulled(_) => "Pull complete",
            Self::LayerExists => "Layer already exists",
            Self::Mounted => "Mounted from another repository",
            Self::Pushed(_) => "Pushed",
            Self::Saved(_) => "Saved",
            Self::Committed(_) => "Committed",
        }
    }
}

impl Progress {
    /// Chooses the form: nothing with `quiet`, else notes and what else is told as asked for, else by what standard error is.
    pub(crate) fn new(form: ProgressForm, quiet: bool, details: bool) -> Self {
        let sink = match form {
            _ if quiet => Sink::Silent,
            ProgressForm::None => Sink::Notes,
            ProgressForm::Json => Sink::Json,
            ProgressForm::Auto if std::io::stderr().is_terminal() => Sink::Bars(MultiProgress::new()),
            ProgressForm::Auto | ProgressForm::Plain => Sink::Plain,
        };
        let (layers, total) = (Mutex::default(), Mutex::default());
        Self { sink, out: Box::new(to_stderr), details, task: Task::Load, layers, total }
    }

    /// The same for a pull.
    pub(crate) fn of_pull(mut self) -> Self {
        self.task = Task::Pull;
        self
    }

    /// The same for a push.
    pub(crate) fn of_push(mut self) -> Self {
        self.task = Task::Push;
        self
    }

    /// The same for a commit.
    pub(crate) fn of_commit(mut self) -> Self {
        self.task = Task::Commit;
        self
    }

    /// The same for a save.
    pub(crate) fn of_save(mut self) -> Self {
        self.task = Task::Save;
        self
    }

    /// Shows one piece of news.
    pub(crate) fn tell(&self, event: &Event) {
        match event {
            Event::Layer { index, name, state } => {
                let id = printable(&name.short());
                match state {
                    LayerState::Unpacking { total } => self.start(*index, &id, *total),
                    LayerState::AlreadyExists => self.end(*index, &id, self.task.existed()),
                    LayerState::Mounted => self.end(*index, &id, Outcome::Mounted),
                    LayerState::Uploading { total } | LayerState::Saving { total } => {
                        self.start(*index, &id, Some(*total));
                    }
                    LayerState::Done { size } => self.end(*index, &id, self.task.done(*size)),
                    LayerState::Downloading { total, resumed } => {
                        self.begin_download(*index, &id, *total, *resumed);
                    }
                    LayerState::Waiting => self.waiting(&id),
                    _ => {}
                }
            }
            Event::Progress { index, done, total } => self.advance(*index, *done, *total),
            Event::Unpacked { name, privileged, devices, .. } => {
                self.unpacked(&printable(&name.short()), privileged, *devices);
            }
            Event::Note(text) => self.note(text),
            Event::Plan(plan) => self.plan(plan),
            Event::Uploaded { index, done } => self.advance(*index, *done, None),
            Event::Downloaded { index, done, .. } => self.downloaded(*index, *done),
            _ => {}
        }
    }

    /// What a pull is going to do.
    fn plan(&self, plan: &PullPlan) {
        match &self.sink {
            Sink::Json => self.line(
                &json!({
                    "status": "Plan", "blobs": plan.blobs, "missing": plan.missing, "fetch": plan.fetch,
                    "resume": plan.resume, "reuse": plan.reuse, "unpack": plan.unpack,
                    "available": plan.available,
                })
                .to_string(),
            ),
            Sink::Bars(bars) if plan.fetch.saturating_add(plan.unpack) > 0 => {
                let bar = bars.add(total_bar(plan.fetch.saturating_add(plan.unpack)));
                *self.total.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
            }
            _ => {}
        }
        if !matches!(self.sink, Sink::Json) && plan.fetch.saturating_add(plan.unpack) > 0 {
            self.line(&plan_text(plan));
        }
    }

    /// Another process is at a layer.
    fn waiting(&self, id: &str) {
        match self.sink {
            Sink::Json => self.line(&json!({ "id": id, "status": "Waiting" }).to_string()),
            _ => self.line(&format!("{id}: Waiting for another command that has it under way")),
        }
    }

    fn begin_download(&self, index: usize, id: &str, total: u64, resumed: u64) {
        if resumed > 0 && resumed < total && !matches!(self.sink, Sink::Json) {
            let (resumed, total) = (human_size(resumed), human_size(total));
            self.line(&format!("{id}: Resuming at {resumed} of {total}"));
        }
        let mut layers = self.locked();
        // What is fetched once more begins anew.
        if let (Sink::Bars(bars), Some(bar)) =
            (&self.sink, layers.remove(&index).and_then(|mut old| old.bar.take()))
        {
            bars.remove(&bar);
        }
        let mut layer = Layer { download: Some(resumed), ..Layer::new(id, Some(total)) };
        if let Sink::Bars(bars) = &self.sink {
            let bar = self.add_bar(bars, new_bar(&format!("{id}: Downloading"), Some(total)));
            bar.set_position(resumed);
            layer.bar = Some(bar);
        }
        if matches!(self.sink, Sink::Json) {
            self.line(&layer.json("Downloading"));
        }
        layers.insert(index, layer);
    }

    fn downloaded(&self, index: usize, done: u64) {
        let mut layers = self.locked();
        let Some(layer) = layers.get_mut(&index).filter(|layer| !layer.ended) else { return };
        let Some(before) = layer.download else { return };
        self.count(done.saturating_sub(before));
        if layer.total == Some(done) {
            layer.download = None;
            if let Some(bar) = &layer.bar {
                bar.set_prefix(format!("{}: Extracting", layer.id));
                bar.set_position(layer.done);
            }
            if matches!(self.sink, Sink::Json) {
                let total = layer.total;
                let id = &layer.id;
                let status =
                    json!({ "id": id, "status": "Download complete", "current": done, "total": total });
                self.line(&status.to_string());
            }
            return;
        }
        layer.download = Some(done);
        if let Some(bar) = &layer.bar {
            bar.set_position(done);
        }
        self.report(layer, "Downloading");
    }

    /// More of the whole is done.
    fn count(&self, bytes: u64) {
        if let Some(bar) = &*self.total.lock().unwrap_or_else(PoisonError::into_inner) {
            bar.inc(bytes);
        }
    }

    /// Above the bar of the whole.
    fn add_bar(&self, bars: &MultiProgress, bar: ProgressBar) -> ProgressBar {
        match &*self.total.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(total) => bars.insert_before(total, bar),
            None => bars.add(bar),
        }
    }

    /// A line about how far a layer is, for programs, and not too often.
    fn report(&self, layer: &mut Layer, status: &str) {
        if matches!(self.sink, Sink::Json) && layer.reported.is_none_or(|at| at.elapsed() >= JSON_INTERVAL) {
            layer.reported = Some(Instant::now());
            self.line(&layer.json(status));
        }
    }

    /// What is said beside the layers.
    pub(crate) fn say(&self, text: &str) {
        let text = printable(text);
        match self.sink {
            Sink::Json => self.line(&json!({ "status": text }).to_string()),
            _ => self.line(&text),
        }
    }

    /// Work on a layer begins. `total` is its size in bytes as far as it is known.
    fn start(&self, index: usize, id: &str, total: Option<u64>) {
        let mut layers = self.locked();
        // It was begun as a download.
        if layers.get(&index).is_some_and(|layer| layer.id == id && !layer.ended && self.task == Task::Pull) {
            return;
        }
        let mut layer = Layer::new(id, total);
        if let Sink::Bars(bars) = &self.sink {
            let prefix = match self.working() {
                "Loading" => id.to_owned(),
                working => format!("{id}: {working}"),
            };
            layer.bar = Some(self.add_bar(bars, new_bar(&prefix, total)));
        }
        if matches!(self.sink, Sink::Json) {
            self.line(&layer.json(self.working()));
        }
        layers.insert(index, layer);
    }

    /// What is being done with layers.
    fn working(&self) -> &'static str {
        match self.task {
            Task::Pull => "Extracting",
            Task::Push => "Pushing",
            Task::Save => "Saving",
            Task::Commit => "Committing",
            Task::Load => "Loading",
        }
    }

    /// `done` bytes of a layer have been read.
    fn advance(&self, index: usize, done: u64, total: Option<u64>) {
        let mut layers = self.locked();
        let Some(layer) = layers.get_mut(&index).filter(|layer| !layer.ended) else { return };
        self.count(done.saturating_sub(layer.done));
        layer.done = done;
        if layer.download.is_some() {
            return;
        }
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
        self.report(layer, self.working());
    }

    /// A layer is done; it need not have been started.
    fn end(&self, index: usize, id: &str, outcome: Outcome) {
        let mut layers = self.locked();
        let layer = layers.entry(index).or_insert_with(|| Layer::new(id, None));
        if std::mem::replace(&mut layer.ended, true) {
            return;
        }
        layer.download = None;
        if let Outcome::Loaded(size)
        | Outcome::Pulled(size)
        | Outcome::Pushed(size)
        | Outcome::Saved(size)
        | Outcome::Committed(size) = outcome
        {
            self.count(size.saturating_sub(layer.done));
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
            Sink::Notes => (self.out)(&format!("note: {text}\n")),
            _ => self.line(&format!("note: {text}")),
        }
    }

    /// A line that stays: it stands above the bars, so that any number of layers fits a terminal.
    fn line(&self, text: &str) {
        let text = format!("{text}\n");
        match &self.sink {
            Sink::Silent | Sink::Notes => {}
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
            Outcome::Committed(size) => format!("{}: Committed {}", self.id, human_size(size)),
            _ => format!("{}: {}", self.id, outcome.as_str()),
        }
    }

    fn json(&self, status: &str) -> String {
        let current = self.download.unwrap_or(self.done);
        json!({ "id": self.id, "status": status, "current": current, "total": self.total }).to_string()
    }
}

fn plan_text(plan: &PullPlan) -> String {
    let mut text = match plan.missing {
        0 => "nothing to fetch".to_owned(),
        missing => format!("{missing} of {} layers to fetch, {}", plan.blobs, human_size(plan.fetch)),
    };
    if plan.resume > 0 {
        let more = if plan.missing == 0 { "" } else { " more" };
        text.extend([" (", &human_size(plan.resume), more, " are here from an earlier attempt)"]);
    }
    if plan.unpack > 0 {
        text.extend(["; ", &human_size(plan.unpack), " to unpack"]);
    }
    text.extend(["; ", &human_size(plan.available), " free"]);
    text
}

/// Written at once, so that lines of several threads do not mix.
fn to_stderr(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}
