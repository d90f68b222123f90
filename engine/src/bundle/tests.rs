use std::io::Cursor;
use std::os::unix::ffi::OsStrExt as _;

use layerstore_oci::ErrorKind;

use super::*;

fn image(config: &Value) -> ImageConfig {
    let document = json!({
        "os": "linux", "architecture": "amd64", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    ImageConfig::parse(document.to_string().as_bytes()).unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "the form of `Files`")]
fn accounts(path: &str) -> Result<Option<Box<dyn Read>>> {
    let list = match path {
        "/etc/passwd" => "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\n",
        _ => "adm:x:4:www\n",
    };
    Ok(Some(Box::new(Cursor::new(list))))
}

fn made(config: &Value, options: &BundleOptions) -> RuntimeConfig {
    runtime_config(&image(config), &accounts, options).unwrap()
}

fn json_of(config: &Value, options: &BundleOptions) -> Value {
    made(config, options).json
}

fn refusal(config: &Value, options: &BundleOptions) -> String {
    let error = runtime_config(&image(config), &accounts, options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    error.to_string()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn sh() -> Value {
    json!({ "Cmd": ["sh"] })
}

#[test]
fn the_command_is_docker_s() {
    let both = json!({ "Entrypoint": ["entry", "e"], "Cmd": ["cmd", "c"] });
    let args = |config: &Value, entrypoint: Option<&str>, args: &str| {
        let options = BundleOptions {
            entrypoint: entrypoint.map(words),
            args: words(args),
            ..BundleOptions::default()
        };
        json_of(config, &options)["process"]["args"].clone()
    };
    assert_eq!(args(&both, None, ""), json!(["entry", "e", "cmd", "c"]));
    assert_eq!(args(&both, None, "a b"), json!(["entry", "e", "a", "b"]));
    assert_eq!(args(&both, Some("other o"), ""), json!(["other", "o"]));
    assert_eq!(args(&both, Some("other"), "a"), json!(["other", "a"]));
    assert_eq!(args(&both, Some(""), "a b"), json!(["a", "b"]));
    assert_eq!(args(&sh(), None, ""), json!(["sh"]));
    assert_eq!(args(&json!({}), None, "a"), json!(["a"]));
}

#[test]
fn nothing_to_run_is_an_error() {
    let sentence = "there is nothing to run: the image has no command, and none is given";
    assert_eq!(refusal(&json!({}), &BundleOptions::default()), sentence);
    assert_eq!(refusal(&json!({ "Cmd": [""] }), &BundleOptions::default()), sentence);
    let options = BundleOptions { entrypoint: Some(Vec::new()), ..BundleOptions::default() };
    assert_eq!(refusal(&sh(), &options), sentence);
}

#[test]
fn the_environment_is_docker_s() {
    let env = |env: Value, options: &BundleOptions| {
        json_of(&json!({ "Cmd": ["sh"], "Env": env }), options)["process"]["env"].clone()
    };
    let usual = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let plain = BundleOptions::default();
    assert_eq!(env(json!(null), &plain), json!([usual, "HOME=/root"]));
    assert_eq!(
        env(json!(["A=1", "PATH=/bin", "B=x=y", "A=2", "=odd", "odd", "E="]), &plain),
        json!(["PATH=/bin", "HOME=/root", "A=2", "B=x=y", "E="])
    );
    let options = BundleOptions {
        env: vec!["A=mine".into(), "NEW=1".into(), "B".into()],
        user: Some("www".into()),
        hostname: Some("box".into()),
        terminal: true,
        ..plain.clone()
    };
    assert_eq!(
        env(json!(["A=1", "B=2"]), &options),
        json!([usual, "HOSTNAME=box", "TERM=xterm", "HOME=/var/www", "A=mine", "NEW=1"])
    );
    assert_eq!(env(json!(["HOME=/own"]), &plain), json!([usual, "HOME=/own"]));
    // As the runtime would.
    assert_eq!(env(json!(["HOME="]), &plain), json!([usual, "HOME=/root"]));
    let options = BundleOptions { env: vec!["PATH".into(), "HOME".into()], ..plain };
    assert_eq!(env(json!(null), &options), json!(["HOME=/root"]));
}

#[test]
fn the_working_directory_is_absolute_and_clean() {
    let cwd = |image: &str, option: Option<&str>| {
        let options = BundleOptions { workdir: option.map(str::to_owned), ..BundleOptions::default() };
        json_of(&json!({ "Cmd": ["sh"], "WorkingDir": image }), &options)["process"]["cwd"].clone()
    };
    assert_eq!(cwd("", None), "/");
    assert_eq!(cwd("/srv//app/./x/", None), "/srv/app/x");
    assert_eq!(cwd("/srv/../../../etc", None), "/etc");
    assert_eq!(cwd("/srv", Some("/other")), "/other");
    assert_eq!(cwd("/srv", Some("")), "/");
    let relative = json!({ "Cmd": ["sh"], "WorkingDir": "srv" });
    assert_eq!(
        refusal(&relative, &BundleOptions::default()),
        "the working directory `srv` is not an absolute path"
    );
}

#[test]
fn the_user_is_looked_up() {
    let process = |user: &str, option: Option<&str>| {
        let options = BundleOptions { user: option.map(str::to_owned), ..BundleOptions::default() };
        json_of(&json!({ "Cmd": ["sh"], "User": user }), &options)["process"].clone()
    };
    let www = process("www", None);
    assert_eq!(www["user"], json!({ "uid": 33, "gid": 33, "additionalGids": [33, 4] }));
    let root = process("www", Some("0:7"));
    assert_eq!(root["user"], json!({ "uid": 0, "gid": 7, "additionalGids": [7] }));
    // What a program has that another user than root starts: no capability but by its file.
    assert_eq!(root["capabilities"]["effective"].as_array().unwrap().len(), 14);
    assert_eq!(www["capabilities"]["effective"], Value::Null);
    assert_eq!(www["capabilities"]["bounding"], root["capabilities"]["bounding"]);
}

#[test]
fn text_that_ends_early_is_refused() {
    for (config, what) in [
        (json!({ "Cmd": ["s\0h"] }), "the command"),
        (json!({ "Cmd": ["sh"], "Env": ["A=\0"] }), "the environment"),
        (json!({ "Cmd": ["sh"], "User": "ww\0w" }), "the user"),
        (json!({ "Cmd": ["sh"], "WorkingDir": "/\0" }), "the working directory"),
    ] {
        assert_eq!(refusal(&config, &BundleOptions::default()), format!("{what} contains a NUL byte"));
    }
}

#[test]
fn hostnames_have_a_limit() {
    for (hostname, sentence) in [
        ("x".repeat(65), "is empty or has more than 64 bytes"),
        (String::new(), "is empty or has more than 64 bytes"),
        ("a\0b".to_owned(), "contains a NUL byte"),
    ] {
        let options = BundleOptions { hostname: Some(hostname), ..BundleOptions::default() };
        assert!(refusal(&sh(), &options).ends_with(sentence));
    }
}

#[test]
fn annotations_are_those_of_the_specification() {
    let config = json!({
        "os": "linux", "architecture": "arm", "variant": "v7", "author": "me", "created": "2024-01-02T03:04:05Z",
        "os.features": ["a", "b"],
        "config": {
            "Cmd": ["sh"], "StopSignal": "SIGQUIT", "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
            "Labels": { "z": "1", "org.opencontainers.image.author": "the label's", "empty": "" },
        },
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let image = ImageConfig::parse(config.to_string().as_bytes()).unwrap();
    let made = runtime_config(&image, &accounts, &BundleOptions::default()).unwrap();
    assert_eq!(
        made.json["annotations"],
        json!({
            "empty": "",
            "org.opencontainers.image.architecture": "arm",
            "org.opencontainers.image.author": "the label's",
            "org.opencontainers.image.created": "2024-01-02T03:04:05Z",
            "org.opencontainers.image.exposedPorts": "53/udp,80/tcp",
            "org.opencontainers.image.os": "linux",
            "org.opencontainers.image.os.features": "a,b",
            "org.opencontainers.image.stopSignal": "SIGQUIT",
            "org.opencontainers.image.variant": "v7",
            "z": "1",
        })
    );
    assert_eq!(made.notes, [""; 0]);
}

#[test]
fn labels_give_no_orders_to_the_runtime() {
    let labels = json!({
        "run.oci.hooks.stdout": "/etc/cron.d/x", "org.systemd.property.ExecStop": "x", "org.criu.config": "/x",
        "run.ocix": "kept", "": "x", "a\0b": "x",
    });
    let made = made(&json!({ "Cmd": ["sh"], "Labels": labels }), &BundleOptions::default());
    let annotations = made.json["annotations"].as_object().unwrap();
    let keys: Vec<&str> = annotations
        .keys()
        .map(String::as_str)
        .filter(|key| !key.starts_with("org.opencontainers."))
        .collect();
    assert_eq!(keys, ["run.ocix"]);
    assert_eq!(made.notes.len(), 5);
    assert!(
        made.notes.contains(
            &"the image's label `run.oci.hooks.stdout` is left out: it would be an order to the runtime"
                .to_owned()
        )
    );
}

fn with_volumes(volumes: &[&str]) -> Value {
    let volumes: serde_json::Map<_, _> = volumes.iter().map(|path| ((*path).to_owned(), json!({}))).collect();
    json!({ "Cmd": ["sh"], "Volumes": volumes })
}

fn volume_mounts(made: &RuntimeConfig) -> Vec<Value> {
    made.json["mounts"].as_array().unwrap()[7..].to_vec()
}

#[test]
fn volumes_are_mounts() {
    let config = with_volumes(&["/data/x", "/data//", "/data", "/a%b", "/./var/lib/"]);
    let made = |volumes| made(&config, &BundleOptions { volumes, ..BundleOptions::default() });

    let tmpfs = made(Volumes::Tmpfs);
    let places: Vec<Value> = volume_mounts(&tmpfs).iter().map(|m| m["destination"].clone()).collect();
    assert_eq!(places, ["/a%b", "/data", "/data/x", "/var/lib"]);
    assert_eq!(
        volume_mounts(&tmpfs)[0],
        json!({ "destination": "/a%b", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] })
    );
    assert_eq!(tmpfs.volumes, []);
    let options = BundleOptions { user: Some("www:4".into()), ..BundleOptions::default() };
    let of_user = &volume_mounts(&runtime_config(&image(&config), &accounts, &options).unwrap())[0];
    assert_eq!(of_user["options"], json!(["nosuid", "nodev", "mode=1777", "uid=33", "gid=4"]));

    let bind = made(Volumes::Bind("/srv/volumes".into()));
    let sources: Vec<Value> = volume_mounts(&bind).iter().map(|m| m["source"].clone()).collect();
    let names = ["a%25b", "data", "data%2Fx", "var%2Flib"];
    assert_eq!(sources, names.map(|name| format!("/srv/volumes/{name}")));
    assert_eq!(volume_mounts(&bind)[0]["type"], "bind");
    assert_eq!(bind.volumes.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), names);

    assert_eq!(volume_mounts(&made(Volumes::Ignore)), [Value::Null; 0]);
}

#[test]
fn volumes_that_are_no_places_are_refused() {
    for (path, reason) in [
        ("data", "it is not an absolute path"),
        ("", "it is not an absolute path"),
        ("C:\\data", "it is not an absolute path"),
        ("/", "it is the root"),
        ("//.", "it is the root"),
        ("/data/../etc", "it contains `..`"),
        ("/..", "it contains `..`"),
        ("/a\0", "it contains a NUL byte"),
    ] {
        let text = refusal(&with_volumes(&[path]), &BundleOptions::default());
        assert_eq!(
            text,
            format!("the image's volume `{}` cannot be mounted: {reason}", path.escape_default())
        );
        let ignored = BundleOptions { volumes: Volumes::Ignore, ..BundleOptions::default() };
        assert!(volume_mounts(&made(&with_volumes(&[path]), &ignored)).is_empty());
    }
    let many: Vec<String> = (0..1001).map(|number| format!("/{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(refusal(&with_volumes(&many), &BundleOptions::default()).contains("has 1001 volumes"));
}

#[test]
fn volumes_do_not_hide_what_the_runtime_mounts() {
    let made =
        made(&with_volumes(&["/sys/fs/cgroup", "/proc", "/dev/shm/", "/device"]), &BundleOptions::default());
    assert_eq!(volume_mounts(&made).len(), 1);
    assert_eq!(made.notes.len(), 3);
    assert_eq!(
        made.notes[2],
        "the image's volume `/sys/fs/cgroup` is left out: the runtime mounts something there"
    );
}

#[test]
fn directories_of_volumes_have_names_of_their_own() {
    let long = "/long".repeat(60);
    let made = made(
        &with_volumes(&["/a/b", "/a%2Fb", &long, "/..."]),
        &BundleOptions { volumes: Volumes::Bind("v".into()), ..BundleOptions::default() },
    );
    let names: Vec<&str> = made.volumes.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names[..3], ["...", "a%252Fb", "a%2Fb"]);
    assert!(names[3].starts_with("%sha256-") && names[3].len() == 72, "{}", names[3]);
    let odd = Volumes::Bind(std::ffi::OsStr::from_bytes(b"/\xff").into());
    let text = refusal(&with_volumes(&["/a"]), &BundleOptions { volumes: odd, ..BundleOptions::default() });
    assert!(text.ends_with("is not UTF-8, as all text in a config.json is"));
}

fn maps(uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)]) -> BundleOptions {
    let ranges = |list: &[(u32, u32, u32)]| {
        list.iter().map(|&(container, host, count)| IdRange { container, host, count }).collect()
    };
    BundleOptions { uid_map: ranges(uids), gid_map: ranges(gids), ..BundleOptions::default() }
}

#[test]
fn maps_make_a_user_namespace() {
    let kinds = |json: &Value| -> Vec<String> {
        let all = json["linux"]["namespaces"].as_array().unwrap();
        all.iter().map(|namespace| namespace["type"].as_str().unwrap().to_owned()).collect()
    };
    let plain = json_of(&sh(), &BundleOptions::default());
    assert_eq!(kinds(&plain), ["pid", "ipc", "uts", "mount", "network", "cgroup"]);
    assert_eq!(plain["linux"]["uidMappings"], Value::Null);

    let mapped = json_of(&sh(), &maps(&[(0, 100_000, 65_536)], &[(0, 200_000, 1)]));
    assert_eq!(kinds(&mapped).last().unwrap(), "user");
    assert_eq!(
        mapped["linux"]["uidMappings"],
        json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }])
    );
    assert_eq!(mapped["linux"]["gidMappings"][0]["hostID"], 200_000);
    assert_eq!(plain["linux"]["sysctl"].as_object().unwrap().len(), 2);
    assert_eq!(mapped["linux"]["sysctl"], json!({ "net.ipv4.ip_unprivileged_port_start": "0" }));
    // The group of terminals is not in this one.
    let options = |json: &Value| json["mounts"][2]["options"].to_string();
    assert!(!options(&mapped).contains("gid=5") && options(&plain).contains("gid=5"));
}

#[test]
fn maps_that_the_kernel_refuses_are_refused() {
    let whole = [(0, 0, 1000)];
    for (uids, reason) in [
        (&[][..], "it is missing, and a user namespace has both"),
        (&[(0, 0, 0)], "a range is empty or leaves the range of IDs"),
        (&[(0, u32::MAX, 1)], "a range is empty or leaves the range of IDs"),
        (&[(5, 0, u32::MAX)], "a range is empty or leaves the range of IDs"),
        (&[(0, 0, 10), (9, 20, 1)], "two ranges overlap"),
        (&[(0, 0, 10), (10, 9, 1)], "two ranges overlap"),
        (&[(10, 10, 10), (0, 20, 11)], "two ranges overlap"),
    ] {
        assert_eq!(refusal(&sh(), &maps(uids, &whole)), format!("the user ID map is not usable: {reason}"));
        let text = refusal(&sh(), &maps(&whole, uids));
        assert_eq!(text, format!("the group ID map is not usable: {reason}"));
    }
    let many: Vec<_> = (0..341).map(|id| (id, id, 1)).collect();
    assert!(refusal(&sh(), &maps(&many, &whole)).contains("more than 340"));
    json_of(&sh(), &maps(&[(0, 0, 10), (10, 10, 1)], &whole));
}

#[test]
fn a_process_outside_of_its_namespace_is_refused() {
    let user = |user: &str, options: BundleOptions| {
        let options = BundleOptions { user: Some(user.to_owned()), ..options };
        refusal(&sh(), &options)
    };
    let few = [(0, 1000, 10)];
    assert_eq!(user("33", maps(&few, &[(0, 1000, 100)])), "the user ID 33 is in no range of the user ID map");
    assert_eq!(
        user("33", maps(&[(0, 0, 33), (34, 34, 1)], &few)),
        "the user ID 33 is in no range of the user ID map"
    );
    assert_eq!(user("33", maps(&[(33, 0, 1)], &few)), "the group ID 33 is in no range of the group ID map");
}

#[test]
fn the_rest_is_docker_s() {
    let json = json_of(
        &sh(),
        &BundleOptions {
            read_only: true,
            no_new_privileges: true,
            terminal: true,
            ..BundleOptions::default()
        },
    );
    assert_eq!(json["root"], json!({ "path": "rootfs", "readonly": true }));
    assert_eq!(json["process"]["noNewPrivileges"], true);
    assert_eq!(json["process"]["terminal"], true);
    assert_eq!(json["hostname"], Value::Null);
    let places: Vec<&str> =
        json["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
    assert_eq!(
        places,
        ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"],
        "each before what is below it"
    );
    assert!(json["linux"]["maskedPaths"].to_string().contains("/proc/kcore"));
    assert!(json["linux"]["readonlyPaths"].to_string().contains("/proc/sys"));
    let options = BundleOptions { hostname: Some("box".into()), ..BundleOptions::default() };
    assert_eq!(json_of(&sh(), &options)["hostname"], "box");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let config = json!({
        "Cmd": ["sh"], "Labels": { "b": "1", "a": "2", "c": "3" }, "Volumes": { "/b": {}, "/a": {} },
        "Env": ["B=1", "A=2"], "ExposedPorts": { "2/tcp": {}, "1/tcp": {} },
    });
    let first = made(&config, &BundleOptions::default()).to_bytes();
    for _ in 0..20 {
        assert_eq!(made(&config, &BundleOptions::default()).to_bytes(), first);
    }
    assert!(first.starts_with(b"{\n  \"ociVersion\": \"1.0.2\",\n") && first.ends_with(b"}\n"));
}
