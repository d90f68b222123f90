//! A real image, run by runc and crun with the configs that the library makes of it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use layerstore::{
    BundleDirectory, BundleError, BundleOptions, Error, IdRange, Layerstore, LoadOptions, Source, Volumes,
};
use layerstore_testkit::runtime::Runtime;
use layerstore_testkit::{digest, hex_of, require};
use serde_json::{Value, json};

/// The image `app` in a store of its own, with `config` as the part of its config that says how to run it.
struct App {
    dir: tempfile::TempDir,
    store: Layerstore,
    image: String,
}

impl App {
    fn new(config: &Value) -> Option<Self> {
        if !require::root() || !require::runtimes() {
            return None;
        }
        let app = require::images()?.join("oci-app");
        let parent = std::env::var_os("LAYERSTORE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new().prefix("layerstore-test-").tempdir_in(parent).unwrap();
        // For containers with a user namespace, whose root is a stranger here.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let layout = dir.path().join("layout");
        reconfigure(&app, &layout, config);
        let store = Layerstore::open(&dir.path().join("store")).unwrap();
        let report = store.load(Source::Path(layout), &LoadOptions::default(), &|_| {}).unwrap();
        let image = report.images[0].id.to_string();
        Some(Self { dir, store, image })
    }

    fn bundle(&self, options: &BundleOptions) -> Bundle<'_> {
        let config = self.store.runtime_config(&self.image, options, &|_| {}).unwrap();
        let path = self.dir.path().join("bundle");
        let mut bundle =
            BundleDirectory::create(&path, options.gid_map.first().map(|range| range.host)).unwrap();
        bundle.make_volumes(&config).unwrap();
        bundle.write_config(&config).unwrap();
        self.store.mount(&self.image, Some(&bundle.rootfs()), &|_| {}).unwrap();
        Bundle { app: self, rootfs: bundle.rootfs(), path: bundle.commit() }
    }

    /// Runs a bundle under each runtime; each must print the same.
    #[track_caller]
    fn run(&self, options: &BundleOptions) -> String {
        let outputs = Runtime::ALL.map(|runtime| {
            let bundle = self.bundle(options);
            let run = runtime.run(&bundle.path);
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}: {run}", runtime.name());
            run.stdout
        });
        assert_eq!(outputs[0], outputs[1]);
        outputs[0].clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        for mount in self.store.mounted().unwrap_or_default() {
            self.store.unmount(mount.target.as_os_str()).ok();
        }
    }
}

/// A bundle whose root filesystem is mounted. Both go with the value.
struct Bundle<'a> {
    app: &'a App,
    path: PathBuf,
    rootfs: PathBuf,
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        if self.app.store.unmount(self.rootfs.as_os_str()).is_ok() {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// Makes a layout of an image like that in `from`, with another config.
fn reconfigure(from: &Path, to: &Path, config: &Value) {
    let blobs = to.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |of: &Value| from.join("blobs/sha256").join(hex_of(of["digest"].as_str().unwrap()));
    let write = |descriptor: &mut Value, document: &Value| {
        let bytes = document.to_string();
        let digest = digest(bytes.as_bytes());
        fs::write(blobs.join(hex_of(&digest)), &bytes).unwrap();
        descriptor["digest"] = digest.into();
        descriptor["size"] = bytes.len().into();
    };
    let mut index = read(from.join("index.json"));
    let mut manifest = read(blob(&index["manifests"][0]));
    let mut document = read(blob(&manifest["config"]));
    for layer in manifest["layers"].as_array().unwrap() {
        fs::copy(blob(layer), blobs.join(hex_of(layer["digest"].as_str().unwrap()))).unwrap();
    }
    document["config"] = config.clone();
    write(&mut manifest["config"], &document);
    write(&mut index["manifests"][0], &manifest);
    fs::copy(from.join("oci-layout"), to.join("oci-layout")).unwrap();
    fs::write(to.join("index.json"), index.to_string()).unwrap();
}

fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

/// Everything in one test, because loading the image takes longer than all the rest.
#[test]
fn privileged_app_runs_under_runc_and_crun() {
    let config = json!({
        "Entrypoint": ["python3"], "Cmd": ["-c", "import numpy; print(numpy.__version__)"], "User": "www-data",
        "Env": ["GREETING=hello"], "WorkingDir": "/var/tmp", "StopSignal": "SIGINT",
        "Volumes": { "/srv": {}, "/var/cache/": {}, "/sys/fs/cgroup": {} }, "ExposedPorts": { "80/tcp": {} },
        // crun would not start without someone who listens there.
        "Labels": { "run.oci.pidfd_receiver": "/nobody/listens", "a": "b" },
    });
    let Some(app) = App::new(&config) else { return };
    image_s_own_command(&app);
    user_environment_and_place(&app);
    network(&app);
    capabilities(&app);
    what_is_hidden(&app);
    volumes_in_memory(&app);
    volumes_in_the_bundle(&app);
    user_namespace(&app);
    users_of_the_root_filesystem(&app);
}

fn image_s_own_command(app: &App) {
    let version = app.run(&BundleOptions::default());
    let digits = |text: &str| text.split('.').all(|part| part.trim_end().parse::<u32>().is_ok());
    assert!(version.contains('.') && digits(&version), "{version}");
    let options = BundleOptions { user: Some("root".into()), read_only: true, ..BundleOptions::default() };
    assert_eq!(app.run(&options), version);
}

fn user_environment_and_place(app: &App) {
    let options = BundleOptions {
        entrypoint: Some(sh("id -un; id -u; id -G; echo $HOME $GREETING $EXTRA; pwd; hostname")),
        env: vec!["EXTRA=more".into()],
        hostname: Some("box".into()),
        ..BundleOptions::default()
    };
    assert_eq!(app.run(&options), "www-data\n33\n33\n/var/www hello more\n/var/tmp\nbox\n");
    let options = BundleOptions { user: Some("nobody:games".into()), ..options };
    assert!(app.run(&options).starts_with("nobody\n65534\n60\n/nonexistent hello"));
    let script = sh("id -u; id -g; echo $HOME");
    let options =
        BundleOptions { user: Some("4321".into()), entrypoint: Some(script), ..BundleOptions::default() };
    assert_eq!(app.run(&options), "4321\n0\n/\n");
}

/// The network is the container's own, where anyone may listen on any port.
fn network(app: &App) {
    let script = "import socket; s = socket.socket(); s.bind(('', 80)); print([n for _, n in socket.if_nameindex()][0])";
    let options = BundleOptions { args: vec!["-c".into(), script.into()], ..BundleOptions::default() };
    assert_eq!(app.run(&options), "lo\n");
}

/// Root has Docker's; others can get them from programs only.
fn capabilities(app: &App) {
    let script = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status | tr -d '\\n\\t'";
    let options =
        BundleOptions { entrypoint: Some(sh(script)), no_new_privileges: true, ..BundleOptions::default() };
    let (none, all) = ("0000000000000000", "00000000a80425fb");
    let of = |own| format!("CapInh:{none}CapPrm:{own}CapEff:{own}CapBnd:{all}CapAmb:{none}NoNewPrivs:1");
    assert_eq!(app.run(&options), of(none));
    assert_eq!(app.run(&BundleOptions { user: Some("0".into()), ..options }), of(all));
}

fn what_is_hidden(app: &App) {
    let script =
        "wc -c </proc/interrupts; ls /sys/firmware; (echo 1 >/proc/sys/kernel/panic) 2>/dev/null || echo no";
    let user = Some("root".into());
    let options = BundleOptions { entrypoint: Some(sh(script)), user, ..BundleOptions::default() };
    assert_eq!(app.run(&options), "0\nno\n");
}

fn volumes_in_memory(app: &App) {
    let script = "touch /srv/file /var/cache/file && ls /srv /var/cache && stat -f -c %T /srv";
    let options = BundleOptions { entrypoint: Some(sh(script)), ..BundleOptions::default() };
    assert_eq!(app.run(&options), "/srv:\nfile\n\n/var/cache:\nfile\ntmpfs\n");
    let options = BundleOptions { volumes: Volumes::Ignore, user: Some("0".into()), ..options };
    let bundle = app.bundle(&options);
    assert!(Runtime::Runc.run(&bundle.path).stderr.contains("Read-only file system"));
}

fn volumes_in_the_bundle(app: &App) {
    let options = BundleOptions {
        entrypoint: Some(sh("echo of $(id -un) >/srv/file; touch /var/cache/x; ls /srv")),
        volumes: Volumes::Bind("volumes".into()),
        ..BundleOptions::default()
    };
    for runtime in Runtime::ALL {
        let bundle = app.bundle(&options);
        let run = runtime.run(&bundle.path).success();
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("file\n", ""));
        let file = bundle.path.join("volumes/srv/file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "of www-data\n");
        assert_eq!(file.metadata().unwrap().uid(), 33);
        assert!(bundle.path.join("volumes/var%2Fcache/x").exists());
    }
}

fn user_namespace(app: &App) {
    let range = IdRange { container: 0, host: 100_000, count: 65_536 };
    let script = "id -u; tr -s ' ' </proc/self/uid_map; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; stat -c %U /usr; touch /srv/file && stat -c %U /srv/file";
    let options = BundleOptions {
        entrypoint: Some(sh(script)),
        user: Some("www-data".into()),
        uid_map: vec![range],
        gid_map: vec![range],
        ..BundleOptions::default()
    };
    // The image's files are a stranger's there, as this mount is not an idmapped one.
    assert_eq!(app.run(&options), "33\n 0 100000 65536\n0\nnobody\nwww-data\n");
    let options = BundleOptions { volumes: Volumes::Bind("volumes".into()), ..options };
    assert_eq!(app.run(&options), "33\n 0 100000 65536\n0\nnobody\nwww-data\n");
}

fn users_of_the_root_filesystem(app: &App) {
    let options = BundleOptions { user: Some("no-such-user".into()), ..BundleOptions::default() };
    let error = app.store.runtime_config(&app.image, &options, &|_| {}).unwrap_err();
    assert_eq!(error.to_string(), "there is no user `no-such-user` in /etc/passwd of the image");
    assert!(matches!(error, Error::Bundle(BundleError::NoUser { .. })));

    // A container may have users that its image has not.
    let rootfs = app.dir.path().join("of-a-container");
    fs::create_dir_all(rootfs.join("etc")).unwrap();
    fs::write(rootfs.join("etc/passwd"), "no-such-user:x:7:8::/:\n").unwrap();
    let config = app.store.runtime_config_in(&app.image, &rootfs, &options).unwrap();
    assert_eq!(config.json["process"]["user"], json!({ "uid": 7, "gid": 8, "additionalGids": [8] }));
}
