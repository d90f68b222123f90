//! Shows a page in Chromium without a screen, and does to it what a person does: clicks, presses keys, looks.
//!
//! Chromium is driven through pipes (`--remote-debugging-pipe`: messages in JSON, each with a NUL at the end, read
//! from file 3 and written to file 4). It ends when its pipe does, so with this process, however that ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::daemon::folder;
use crate::podman::PATH;

/// What is read from a pipe becomes file 3, what is written to one file 4; the rest says nothing.
const RUN: &str = r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A browser with one page. It ends with the value.
#[derive(Debug)]
pub struct Chromium {
    child: Child,
    requests: Option<ChildStdin>,
    messages: Receiver<Value>,
    events: Vec<Value>,
    last: u64,
    session: Option<String>,
    // Goes after the browser has ended.
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// Starts a browser with an empty page of this size, in pixels.
    #[track_caller]
    pub fn start(width: u32, height: u32) -> Self {
        let profile = folder("chromium");
        let mut child = Command::new("sh")
            .args(["-c", RUN, "sh", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--disable-extensions", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", profile.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("sh: {e}"));
        let requests = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let events = Vec::new();
        let mut browser =
            Self { child, requests, messages, events, last: 0, session: None, _profile: profile };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", &attach);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        browser.ask("Performance.enable", &json!({ "timeDomain": "threadTicks" }));
        browser.resize(width, height);
        browser
    }

    /// Shows a file, and waits until it is loaded.
    #[track_caller]
    pub fn open(&mut self, file: &Path) {
        self.events.clear();
        let answer = self.ask("Page.navigate", &json!({ "url": format!("file://{}", file.display()) }));
        assert!(answer.get("errorText").is_none(), "{}: {answer}", file.display());
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let message = self.receive();
            self.events.push(message);
        }
        self.settle();
    }

    /// Calls a method of the `DevTools` protocol.
    #[track_caller]
    pub fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.requests.as_mut().unwrap().write_all(&bytes).unwrap();
        loop {
            let mut message = self.receive();
            if message["id"] == self.last {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    #[track_caller]
    fn receive(&mut self) -> Value {
        self.messages.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("Chromium says nothing: {e}"))
    }

    /// The value of an expression of JavaScript; a promise is waited for.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.ask("Runtime.evaluate", &parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until the page has been drawn with all that has happened so far.
    #[track_caller]
    pub fn settle(&mut self) {
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
    }

    /// Clicks into the middle of the first element that `selector` finds, after scrolling there.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let find = format!("document.querySelector({})", json!(selector));
        assert_eq!(self.evaluate(&format!("{find} !== null")), true, "nothing is {selector}");
        self.evaluate(&format!("void {find}.scrollIntoView({{ block: 'center' }})"));
        // Where it is once the page has been scrolled and drawn.
        self.settle();
        let at = self.evaluate(&format!(
            "(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])({find}.getBoundingClientRect())"
        ));
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({ "type": kind, "x": at[0], "y": at[1], "button": button, "buttons": buttons, "clickCount": 1 });
            self.ask("Input.dispatchMouseEvent", &event);
        }
        self.settle();
    }

    /// Presses a key, by its name in the DOM (`ArrowLeft`, `Enter`, `a`).
    #[track_caller]
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            " " => 32,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        let mut event = json!({ "type": "keyDown", "key": key, "windowsVirtualKeyCode": code, "text": text });
        self.ask("Input.dispatchKeyEvent", &event);
        event["type"] = json!("keyUp");
        event["text"] = json!("");
        self.ask("Input.dispatchKeyEvent", &event);
        self.settle();
    }

    /// Types into what has the focus.
    #[track_caller]
    pub fn enter(&mut self, text: &str) {
        self.ask("Input.insertText", &json!({ "text": text }));
        self.settle();
    }

    /// Gives the page another size, in pixels.
    #[track_caller]
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", &size);
        self.settle();
    }

    /// Lets the page believe that the person prefers this: pairs as `prefers-color-scheme` and `dark`.
    #[track_caller]
    pub fn prefer(&mut self, features: &[(&str, &str)]) {
        let feature = |(name, value): &(&str, &str)| json!({ "name": name, "value": value });
        let features: Vec<Value> = features.iter().map(feature).collect();
        self.ask("Emulation.setEmulatedMedia", &json!({ "features": features }));
        self.settle();
    }

    /// How long the page has kept a processor busy since it was opened, whatever else the machine did.
    #[track_caller]
    pub fn busy(&mut self) -> Duration {
        let metrics = self.ask("Performance.getMetrics", &json!({}));
        let metrics = metrics["metrics"].as_array().unwrap();
        let tasks = metrics.iter().find(|metric| metric["name"] == "TaskDuration").unwrap();
        Duration::from_secs_f64(tasks["value"].as_f64().unwrap())
    }

    /// What is shown, as PNG; the whole page, however long.
    #[track_caller]
    pub fn screenshot(&mut self) -> Vec<u8> {
        let options = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.ask("Page.captureScreenshot", &options);
        STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }

    /// Errors and warnings since the page was opened: of its script, its policy, its markup.
    #[track_caller]
    pub fn problems(&mut self) -> Vec<Value> {
        self.settle();
        let is_problem = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" | "Log.entryAdded" | "Page.javascriptDialogOpening" => true,
            "Runtime.consoleAPICalled" => event["params"]["type"] != "log",
            _ => false,
        };
        self.events.iter().filter(is_problem).cloned().collect()
    }

    /// Addresses that were asked for since the page was opened, itself included.
    #[track_caller]
    pub fn requested(&mut self) -> Vec<String> {
        self.settle();
        let address = |event: &Value| event["params"]["request"]["url"].as_str().map(str::to_owned);
        let is_request = |event: &&Value| event["method"] == "Network.requestWillBeSent";
        self.events.iter().filter(is_request).filter_map(address).collect()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // All its processes at once: nothing of it is of use, and its folder goes next.
        drop(self.requests.take());
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        self.child.wait().ok();
    }
}
