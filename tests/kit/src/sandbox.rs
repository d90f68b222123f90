//! Runs the `layerstore` binary on a store of its own, with nothing of the person's environment.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;

use crate::require;

/// The optimised binary: `$LAYERSTORE_BIN`, or what a release build of this workspace gives.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("LAYERSTORE_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args(["build", "--release", "--package", "layerstore-cli", "--message-format", "json"])
        .current_dir(require::workspace())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "the layerstore binary does not build");
    let messages = String::from_utf8(out.stdout).unwrap();
    let executable =
        |line| serde_json::from_str::<Value>(line).ok()?["executable"].as_str().map(PathBuf::from);
    messages.lines().filter_map(executable).next_back().expect("cargo names the binary")
}

/// A store in a temporary folder. Mounts below it are undone and the folder is removed with the value.
#[derive(Debug)]
pub struct Sandbox {
    dir: tempfile::TempDir,
    root: PathBuf,
}

impl Sandbox {
    /// An empty store, or nothing when tests that need root are left out. Lives in `$LAYERSTORE_TEST_DIR`
    /// or the system's temporary folder, which must be able to hold overlay layers.
    #[track_caller]
    pub fn new() -> Option<Self> {
        Self::build(None)
    }

    /// The same with the store itself at `root`, which may be on another file system.
    #[track_caller]
    pub fn at(root: &Path) -> Option<Self> {
        Self::build(Some(root))
    }

    #[track_caller]
    fn build(root: Option<&Path>) -> Option<Self> {
        if !require::root() {
            return None;
        }
        let parent = std::env::var_os("LAYERSTORE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new().prefix("layerstore-test-").tempdir_in(parent).unwrap();
        let root = root.map_or_else(|| dir.path().join("store"), Path::to_owned);
        Some(Self { dir, root })
    }

    /// The store's root directory. It is created by the first command.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A folder for the test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file for the test and returns its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A command on this store, to be run by the caller.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("--root")
            .arg(&self.root)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.dir())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .current_dir(self.dir())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, whatever that is.
    #[must_use = "either look at the output or assert the exit status"]
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        Run::of(&mut self.command(args), &[])
    }

    /// The same, with `input` on standard input.
    #[must_use = "either look at the output or assert the exit status"]
    pub fn run_with<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, input: &[u8]) -> Run {
        Run::of(&mut self.command(args), input)
    }

    /// Runs a command that must succeed; returns what it printed.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        self.run(args).success().stdout
    }

    /// Runs `load -i INPUT`, which must succeed.
    #[track_caller]
    pub fn load(&self, input: impl AsRef<OsStr>) -> Run {
        self.run([OsStr::new("load"), OsStr::new("-i"), input.as_ref()]).success()
    }

    /// Writes `archive` to a file and loads it.
    #[track_caller]
    pub fn load_bytes(&self, archive: &[u8]) -> Run {
        let path = self.write("archive.tar", archive);
        self.load(path)
    }

    /// Runs a command that prints one JSON document.
    #[track_caller]
    pub fn json<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Value {
        let out = self.ok(args);
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("not JSON: {e}\n{out}"))
    }

    /// Runs a command that prints one JSON document a line.
    #[track_caller]
    pub fn json_lines<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Vec<Value> {
        let out = self.ok(args);
        out.lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON: {e}\n{l}")))
            .collect()
    }

    /// Mounts an image below the sandbox and returns where.
    #[track_caller]
    pub fn mount(&self, image: &str) -> PathBuf {
        let dir = self.dir().join("mounted").join(image.replace(['/', ':', '@'], "_"));
        fs::create_dir_all(&dir).unwrap();
        let out = self.ok([OsStr::new("mount"), OsStr::new(image), dir.as_os_str()]);
        assert_eq!(Path::new(out.trim_end()), dir, "mount prints the path");
        dir
    }

    /// Undoes [`Self::mount`].
    #[track_caller]
    pub fn umount(&self, dir: &Path) {
        until_free(|| self.run([OsStr::new("umount"), dir.as_os_str()])).success();
    }

    /// The first column of an SQL query on the store's database.
    pub fn sql(&self, query: &str) -> Vec<String> {
        let db = rusqlite::Connection::open(self.root.join("layerstore.db")).unwrap();
        let mut statement = db.prepare(query).unwrap_or_else(|e| panic!("{query}: {e}"));
        let rows = statement.query_map([], |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
        rows.map(|value| match value.unwrap() {
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Integer(number) => number.to_string(),
            other => panic!("{query}: {other:?}"),
        })
        .collect()
    }

    /// Runs an SQL statement on the store's database.
    pub fn execute(&self, statement: &str) {
        let db = rusqlite::Connection::open(self.root.join("layerstore.db")).unwrap();
        db.execute_batch(statement).unwrap_or_else(|e| panic!("{statement}: {e}"));
    }

    /// Names in one of the store's folders; none if there is no such folder.
    pub fn names(&self, folder: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// What must stay as it was when a command fails: the images, and every blob, tree, ingest and piece of
    /// trash on disk.
    #[track_caller]
    pub fn state(&self) -> Vec<String> {
        let mut state: Vec<_> =
            self.ok(["images", "--no-trunc", "--digests", "-a"]).lines().map(str::to_owned).collect();
        for folder in ["blobs/sha256", "blobs/sha512", "overlay2", "ingest", "trash"] {
            state.extend(self.names(folder).into_iter().map(|name| format!("{folder}/{name}")));
        }
        state
    }

    /// Panics if `gc` would take anything: what a successful command leaves, something keeps.
    #[track_caller]
    pub fn assert_nothing_to_collect(&self) {
        assert_eq!(self.ok(["gc", "--dry-run"]), "Reclaimable space: 0B\n");
    }

    /// How many trees are on disk.
    pub fn names_of_trees(&self) -> usize {
        self.names("overlay2").len()
    }

    /// Panics if there is anything on disk that the database does not know, or the other way round.
    #[track_caller]
    pub fn assert_no_leftovers(&self) {
        let empty = BTreeSet::new();
        assert_eq!(self.names("ingest"), empty, "ingests");
        assert_eq!(self.names("trash"), empty, "trash");
        let known: BTreeSet<_> = self.sql("SELECT id FROM tree").into_iter().collect();
        assert_eq!(self.names("overlay2"), known, "directories (left) and rows (right) of trees");
        let known: BTreeSet<_> =
            self.sql("SELECT digest FROM blob").iter().map(|d| crate::hex_of(d).to_owned()).collect();
        assert_eq!(self.names("blobs/sha256"), known, "files (left) and rows (right) of blobs");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        unmount_below(&self.root);
        unmount_below(self.dir.path());
    }
}

/// Unmounts, again while the mount is in use: a process that another test starts in this moment holds copies of all
/// descriptors, those of a file in the mount among them, until it runs its program.
pub fn until_free(umount: impl Fn() -> Run) -> Run {
    let mut run = umount();
    for _ in 0..200 {
        if run.code != 4 {
            break;
        }
        run = umount();
    }
    run
}

/// The same command in so many Landlock domains that the kernel makes no more. Where it has no Landlock, the command.
pub fn in_sixteen_sandboxes(command: &Command) -> Command {
    // landlock_create_ruleset, landlock_restrict_self and prctl(PR_SET_NO_NEW_PRIVS), for which the shell has no words.
    const SCRIPT: &str = "import ctypes, os, struct, sys\n\
        libc = ctypes.CDLL(None)\n\
        libc.prctl(38, 1, 0, 0, 0)\n\
        for _ in range(16):\n    \
            attributes = struct.pack('Q', 1 << 12)\n    \
            ruleset = libc.syscall(444, attributes, len(attributes), 0)\n    \
            libc.syscall(446, ruleset, 0)\n\
        os.execv(sys.argv[1], sys.argv[1:])\n";
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).arg(command.get_program()).args(command.get_args());
    python
}

/// Takes off every mount below `path`, the latest first.
pub(crate) fn unmount_below(path: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in table.lines().rev() {
        let Some(point) = line.split(' ').nth(4) else { continue };
        let point = Path::new(point);
        if point.starts_with(path) && point != path {
            // A mount that has gone meanwhile is as good; a folder that stays busy shows when it is removed.
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
}

/// A finished command.
#[derive(Clone, Debug)]
pub struct Run {
    /// The exit status; -1 after a signal.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
    /// How long it ran.
    pub time: Duration,
    /// The most memory that was resident, in bytes, as last seen before the end.
    pub peak: u64,
    line: String,
}

impl Run {
    /// Runs `command` to its end with `input` on standard input.
    #[must_use = "either look at the output or assert the exit status"]
    pub fn of(command: &mut Command, input: &[u8]) -> Self {
        let line = format!("{command:?}");
        let start = Instant::now();
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run {line}: {e}"));
        let stdin = child.stdin.take();
        let status = format!("/proc/{}/status", child.id());
        std::thread::scope(|scope| {
            // A command that fails early closes its input, and the rest has nowhere to go.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
            let watch = scope.spawn(move || peak(&status));
            let out = child.wait_with_output().unwrap();
            Self {
                code: out.status.code().unwrap_or(-1),
                stdout: String::from_utf8(out.stdout).unwrap(),
                stderr: String::from_utf8(out.stderr).unwrap(),
                time: start.elapsed(),
                peak: watch.join().unwrap(),
                line,
            }
        })
    }

    /// What a `load` says that it loaded, in order: names, or image IDs of images without one.
    pub fn loaded(&self) -> Vec<&str> {
        self.stdout
            .lines()
            .filter_map(|l| l.strip_prefix("Loaded image: ").or_else(|| l.strip_prefix("Loaded image ID: ")))
            .collect()
    }

    /// Panics with everything that was printed unless the command succeeded.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "the status, which matters, has been looked at")]
    pub fn success(self) -> Self {
        assert!(self.code == 0, "{self}");
        self
    }

    /// How many layers the command says it did not have to unpack.
    pub fn reused_layers(&self) -> usize {
        self.stderr.matches("Already exists").count() + self.stdout.matches("Already exists").count()
    }

    /// Asserts a failure as every failure should be: this exit status, one `error:` line, and after it
    /// nothing but hints. Returns the sentence.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert!(self.code == code, "wanted exit status {code}\n{self}");
        let mut talk = self.stderr.lines().skip_while(|l| !l.starts_with("error: "));
        let sentence = talk.next().unwrap_or_else(|| panic!("no `error:` line\n{self}")).to_owned();
        assert!(talk.all(|l| l.starts_with("hint: ")), "more than a sentence and hints\n{self}");
        sentence
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nended with {}\n{}{}", self.line, self.code, self.stdout, self.stderr)
    }
}

/// Watches the kernel's own high-water mark, which only grows, so that rare looks are enough.
fn peak(status: &str) -> u64 {
    let mut peak = 0;
    while let Ok(text) = fs::read_to_string(status) {
        // A process that has ended but was not waited for has no memory to report.
        let Some(kilobytes) = text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.strip_suffix("kB")) else {
            break;
        };
        peak = kilobytes.trim().parse::<u64>().unwrap() << 10;
        std::thread::sleep(Duration::from_millis(2));
    }
    peak
}
