//! Tests of what is shown.

use std::sync::Arc;

use indicatif::{InMemoryTerm, ProgressDrawTarget, TermLike as _};

use super::*;

fn with(sink: Sink, out: Box<dyn Fn(&str) + Send + Sync>) -> Progress {
    let (layers, total) = (Mutex::default(), Mutex::default());
    Progress { sink, out, details: false, task: Task::Load, layers, total }
}

fn on_terminal() -> (Progress, InMemoryTerm) {
    let term = InMemoryTerm::new(6, 80);
    let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
    let sink = Sink::Bars(MultiProgress::with_draw_target(target));
    let lines = term.clone();
    let out = Box::new(move |text: &str| lines.write_str(&text.replace('\n', "\r\n")).unwrap());
    (with(sink, out), term)
}

fn lines_of(sink: Sink, tell: impl FnOnce(&Progress)) -> String {
    told(sink, |progress| {
        tell(&progress);
        progress
    })
}

fn lines_of_a_pull(sink: Sink) -> String {
    told(sink, |progress| {
        let progress = progress.of_pull();
        a_pull(&progress);
        progress
    })
}

fn told(sink: Sink, tell: impl FnOnce(Progress) -> Progress) -> String {
    let lines = Arc::new(Mutex::new(String::new()));
    let copy = Arc::clone(&lines);
    let out = Box::new(move |text: &str| copy.lock().unwrap().push_str(text));
    drop(tell(with(sink, out)));
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
    assert!(matches!(Progress::new(ProgressForm::None, false, false).sink, Sink::Notes));
    assert!(matches!(Progress::new(ProgressForm::None, true, false).sink, Sink::Silent));
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
    assert_eq!(lines_of(Sink::Notes, a_load), "note: kept\n");
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

/// A pull of two layers, one of which an earlier attempt had begun.
fn a_pull(progress: &Progress) {
    let name =
        |byte: &str| layerstore::LayerName::Digest(format!("sha256:{}", byte.repeat(32)).parse().unwrap());
    let state = |index, byte: &str, state| progress.tell(&Event::Layer { index, name: name(byte), state });
    progress.say("1: Pulling from app");
    progress.tell(&Event::Plan(PullPlan {
        blobs: 2,
        missing: 1,
        fetch: 900,
        resume: 100,
        reuse: 0,
        unpack: 1000,
        available: 5_000_000,
    }));
    state(1, "bb", LayerState::Waiting);
    state(0, "aa", LayerState::Downloading { total: 1000, resumed: 100 });
    state(0, "aa", LayerState::Unpacking { total: Some(1000) });
    progress.tell(&Event::Downloaded { index: 0, done: 500, total: 1000 });
    progress.tell(&Event::Progress { index: 0, done: 200, total: Some(1000) });
    progress.tell(&Event::Downloaded { index: 0, done: 1000, total: 1000 });
    progress.tell(&Event::Progress { index: 0, done: 600, total: Some(1000) });
    state(1, "bb", LayerState::AlreadyExists);
    state(0, "aa", LayerState::Done { size: 1000 });
}

#[test]
fn a_pull_says_what_it_will_do_and_what_became_of_each_layer() {
    let expected = "\
1: Pulling from app
1 of 2 layers to fetch, 900B (100B more are here from an earlier attempt); 1kB to unpack; 5MB free
bbbbbbbbbbbb: Waiting for another command that has it under way
aaaaaaaaaaaa: Resuming at 100B of 1kB
bbbbbbbbbbbb: Already exists
aaaaaaaaaaaa: Pull complete
";
    assert_eq!(lines_of_a_pull(Sink::Plain), expected);
}

#[test]
fn a_program_hears_of_downloading_and_extracting() {
    let lines = lines_of_a_pull(Sink::Json);
    let statuses: Vec<String> = lines
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{} {}", value["status"].as_str().unwrap(), value["current"])
        })
        .collect();
    assert_eq!(
        statuses,
        [
            "1: Pulling from app null",
            "Plan null",
            "Waiting null",
            "Downloading 100",
            "Downloading 500",
            "Download complete 1000",
            "Already exists 0",
            "Pull complete 1000"
        ]
    );
}

#[test]
fn a_bar_turns_from_downloading_to_extracting_above_the_total() {
    let (progress, term) = on_terminal();
    let progress = progress.of_pull();
    progress.tell(&Event::Plan(PullPlan { fetch: 1000, unpack: 1000, ..PullPlan::default() }));
    progress.begin_download(0, "aaaaaaaaaaaa", 1000, 0);
    progress.start(0, "aaaaaaaaaaaa", Some(1000));
    progress.downloaded(0, 500);
    let shown = term.contents();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[1].starts_with("aaaaaaaaaaaa: Downloading: [==="), "{shown}");
    assert!(lines[2].starts_with("Total: [===") && lines[2].contains("25 %"), "{shown}");
    progress.downloaded(0, 1000);
    progress.advance(0, 100, Some(1000));
    let shown = term.contents();
    assert!(shown.contains("aaaaaaaaaaaa: Extracting: [=") && shown.contains("55 %"), "{shown}");
}
