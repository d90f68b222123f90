//! Runs a real registry, `docker-registry` of Debian, with a storage of its own.

mod inspect;
mod options;
mod seed;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use options::{RegistryOptions, Tls};
pub use seed::Uploader;

/// How long a registry may take to begin, and an expected line to appear in its log.
const PATIENCE: Duration = Duration::from_secs(30);

/// A registry on a free port of 127.0.0.1. It is killed, and its storage removed, when it is dropped; it also ends
/// with this process, so a registry that is kept in a static does not stay.
#[derive(Debug)]
pub struct Registry {
    dir: tempfile::TempDir,
    options: RegistryOptions,
    process: Process,
}

impl Registry {
    /// Starts a registry and waits until it listens.
    #[track_caller]
    pub fn start(options: RegistryOptions) -> Self {
        let dir = tempfile::Builder::new().prefix("layerstore-registry-").tempdir().unwrap();
        let config = options.config(dir.path());
        let process = Process::start(dir.path(), "registry", &config);
        let registry = Self { dir, options, process };
        registry.options.write_certificates(registry.dir.path(), registry.address().port());
        registry
    }

    /// A registry that anyone may read and write, over plain HTTP.
    #[track_caller]
    pub fn plain() -> Self {
        Self::start(RegistryOptions::new())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// `127.0.0.1:PORT`, as references to images begin.
    pub fn host(&self) -> String {
        self.address().to_string()
    }

    /// `http://127.0.0.1:PORT`, or `https:` with TLS.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// A reference to an image in this registry: `127.0.0.1:PORT/NAME`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address())
    }

    /// The certificate of the authority that signed the registry's, in PEM.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("tls/ca.crt")
    }

    /// A directory in the form of `/etc/docker/certs.d` that has what a client of this registry needs.
    pub fn certs_d(&self) -> PathBuf {
        self.dir.path().join("certs.d")
    }

    /// What the registry said up to now: its own log and a line in the form of Apache's for each request. The line of
    /// a request may come a moment after its answer; see [`Self::wait_for_log`].
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until `is_so` holds of the log. Fails after half a minute.
    #[track_caller]
    pub fn wait_for_log(&self, is_so: impl Fn(&str) -> bool) {
        poll(|| is_so(&self.log()).then_some(()))
            .unwrap_or_else(|| panic!("the log stays like this:\n{}", self.log()));
    }

    /// How many blobs the registry mounted from another repository when it was asked to: answers 201 to a POST
    /// that names the blob.
    pub fn mounts(&self) -> usize {
        let is_mount = |line: &&str| {
            line.contains("\"POST /v2/") && line.contains("mount=") && line.contains("HTTP/1.1\" 201 ")
        };
        self.log().lines().filter(is_mount).count()
    }

    /// Ends the registry and starts it again on the same port with what it holds.
    #[track_caller]
    pub fn restart(&mut self) {
        let address = self.address();
        self.process.stop();
        let mut config = self.options.config(self.dir.path());
        config["http"]["addr"] = address.to_string().into();
        self.process = Process::start(self.dir.path(), "registry", &config);
    }

    fn storage(&self) -> PathBuf {
        self.dir.path().join("storage/docker/registry/v2")
    }
}

/// The registry ends with the standard input, which ends with this process, however that ends.
const RUN: &str = r#"
exec 3<&0
docker-registry serve "$1" 3<&- & registry=$!
(cat <&3 >/dev/null; kill -KILL $registry) & guard=$!
wait $registry
kill $guard"#;

/// A running `docker-registry`.
#[derive(Debug)]
struct Process {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Process {
    #[track_caller]
    fn start(dir: &Path, name: &str, config: &Value) -> Self {
        // JSON is YAML.
        let file = dir.join(format!("{name}.json"));
        fs::write(&file, config.to_string()).unwrap();
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).unwrap();
        let child = Command::new("sh")
            .args(["-c", RUN, "sh"])
            .arg(&file)
            // Every setting can also come from variables.
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .unwrap_or_else(|e| panic!("sh: {e}"));
        let mut process = Self { child, address: SocketAddr::from(([0; 4], 0)), log };
        // The kernel chooses the port, so no other process can have taken it.
        let found = poll(|| {
            // Looked at before the log, which is complete if the registry has ended.
            let has_ended = process.child.try_wait().unwrap().is_some();
            let address = listens_on(&process.log());
            (address.is_some() || has_ended).then_some(address)
        });
        process.address =
            found.flatten().unwrap_or_else(|| panic!("docker-registry does not start:\n{}", process.log()));
        process
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    fn stop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The address that a log names.
fn listens_on(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("msg=\"listening on ")?;
    rest[..rest.find(['"', ','])?].parse().ok()
}

/// Looks again and again until there is something to see or [`PATIENCE`] ends.
pub(crate) fn poll<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let seen = look();
        if seen.is_some() || start.elapsed() > PATIENCE {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests;
