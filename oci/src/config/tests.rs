use super::*;
use crate::{Descriptor, ErrorKind, media_type};

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[test]
fn a_config_as_docker_writes_it() {
    let json = format!(
        r#"{{"architecture":"arm64","variant":"v8","os":"linux","os.features":null,"created":"2024-01-02T03:04:05.678Z",
        "container":"x","container_config":{{"Cmd":null}},"docker_version":"24.0.7","author":null,
        "config":{{"Hostname":"","User":"www-data","ExposedPorts":{{"80/tcp":{{}}}},"Env":["PATH=/bin","A=b"],
        "Cmd":["nginx","-g"],"Entrypoint":null,"Volumes":null,"Labels":{{"k":"v","n":null}},"OnBuild":null,
        "StopSignal":"SIGQUIT","ArgsEscaped":true,"Healthcheck":{{"Test":["CMD","true"],"Interval":5000000000}}}},
        "history":[{{"created":"2024","created_by":"ADD"}},{{"created_by":"CMD","empty_layer":true,"comment":"c"}}],
        "rootfs":{{"type":"layers","diff_ids":["{A}"]}}}}"#
    );
    let config = ImageConfig::parse(json.as_bytes()).unwrap();
    assert_eq!(
        config.platform,
        Some(Platform { variant: Some("v8".into()), ..Platform::new("linux", "arm64", None) })
    );
    assert_eq!(config.created.as_deref(), Some("2024-01-02T03:04:05.678Z"));
    assert_eq!(config.author, None);
    assert_eq!(config.diff_ids[0].to_string(), A);
    assert_eq!(
        (config.history.len(), config.history[0].empty_layer, config.history[1].empty_layer),
        (2, false, true)
    );
    let run = &config.config;
    assert_eq!(
        (run.user.as_str(), run.stop_signal.as_str(), run.args_escaped),
        ("www-data", "SIGQUIT", true)
    );
    assert_eq!((run.cmd.len(), run.entrypoint.len(), run.env.len()), (2, 0, 2));
    assert!(run.exposed_ports.contains("80/tcp"));
    assert_eq!(run.labels["n"], "");
    assert_eq!(run.healthcheck.as_ref().unwrap().interval, 5_000_000_000);

    // What is written for `inspect` reads back as the same.
    let again: ContainerConfig = serde_json::from_str(&serde_json::to_string(run).unwrap()).unwrap();
    assert_eq!(&again, run);
}

#[test]
fn little_is_required() {
    let config =
        ImageConfig::parse(br#"{"rootfs":{"type":"layers","diff_ids":null},"config":null,"history":null}"#);
    let config = config.unwrap();
    assert_eq!(
        (config.platform, config.diff_ids.len(), config.config),
        (None, 0, ContainerConfig::default())
    );
    let old = br#"{"config":{"Cmd":"/bin/sh","Entrypoint":["a"]},"rootfs":{"type":"layers"}}"#;
    assert_eq!(ImageConfig::parse(old).unwrap().config.cmd, ["/bin/sh"]);
}

#[test]
fn layers_must_be_identified() {
    for (json, message) in [
        ("{}", "it has no `rootfs`"),
        (r#"{"rootfs":{"diff_ids":[]}}"#, "type `` is not supported"),
        (r#"{"rootfs":{"type":"layers+base","diff_ids":[]}}"#, "type `layers+base` is not supported"),
        (r#"{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}"#, "not a valid image config"),
        (r#"{"rootfs":{"type":"layers","diff_ids":"x"}}"#, "not a valid image config"),
        ("hello", "not a valid image config"),
    ] {
        let error = ImageConfig::parse(json.as_bytes()).expect_err(json);
        assert!(error.to_string().contains(message), "{json}: {error}");
    }
}

#[test]
fn a_config_for_another_number_of_layers_is_noticed() {
    let config = ImageConfig::parse(br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
    let layer = Descriptor::new(media_type::OCI_LAYER, A.parse().unwrap(), 1);
    let manifest = Manifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::new(media_type::OCI_CONFIG, A.parse().unwrap(), 1),
        layers: vec![layer],
        annotations: BTreeMap::new(),
        subject: None,
        artifact_type: None,
    };
    let error = config.check_layers(&manifest).unwrap_err();
    assert_eq!(error.to_string(), "the config lists 0 diff IDs for 1 layers");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
