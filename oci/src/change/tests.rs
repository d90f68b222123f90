use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn changed(config: Value, changes: &[&str]) -> Result<Value, ChangeError> {
    let Value::Object(mut config) = config else { panic!("not an object") };
    let changes = changes.iter().map(|text| Change::parse(text)).collect::<Result<Vec<_>, _>>()?;
    apply(&changes, &mut config)?;
    Ok(Value::Object(config))
}

#[track_caller]
fn check(config: Value, changes: &[&str], expected: &Value) {
    assert_eq!(changed(config, changes).unwrap(), *expected, "{changes:?}");
}

#[test]
fn commands_have_an_exec_form_and_a_shell_form() {
    check(json!({}), &["CMD [\"a\", \"b c\"]"], &json!({"Cmd": ["a", "b c"]}));
    check(json!({}), &["cmd echo $HOME  'x'"], &json!({"Cmd": ["/bin/sh", "-c", "echo $HOME  'x'"]}));
    check(json!({}), &["CMD [ -e /x ] && run"], &json!({"Cmd": ["/bin/sh", "-c", "[ -e /x ] && run"]}));
    check(json!({}), &["ENTRYPOINT=/run me"], &json!({"Entrypoint": ["/bin/sh", "-c", "/run me"]}));
    let shell = json!({"Shell": ["/bin/bash", "-ec"]});
    check(shell, &["CMD x"], &json!({"Shell": ["/bin/bash", "-ec"], "Cmd": ["/bin/bash", "-ec", "x"]}));
    check(json!({"Cmd": ["x"], "ArgsEscaped": true}), &["CMD []"], &json!({}));
}

#[test]
fn an_entrypoint_takes_away_only_a_command_that_was_there_before() {
    let base = || json!({"Cmd": ["old"], "Entrypoint": null});
    check(base(), &["ENTRYPOINT [\"e\"]"], &json!({"Entrypoint": ["e"]}));
    let both = json!({"Cmd": ["new"], "Entrypoint": ["e"]});
    check(base(), &["CMD [\"new\"]", "ENTRYPOINT [\"e\"]"], &both);
    check(base(), &["ENTRYPOINT [\"e\"]", "CMD [\"new\"]"], &both);
    check(base(), &["CMD [\"new\"]"], &json!({"Cmd": ["new"], "Entrypoint": null}));
}

#[test]
fn variables_are_set_in_place_and_seen_by_what_follows() {
    let base = || json!({"Env": ["PATH=/bin", "B=1"]});
    check(base(), &["ENV PATH=/opt:$PATH C=\"d e\""], &json!({"Env": ["PATH=/opt:/bin", "B=1", "C=d e"]}));
    check(base(), &["ENV B two words"], &json!({"Env": ["PATH=/bin", "B=two words"]}));
    // Those of one instruction do not see each other.
    check(base(), &["ENV B=2 C=$B", "ENV D=$B"], &json!({"Env": ["PATH=/bin", "B=2", "C=1", "D=2"]}));
    check(json!({"Env": null}), &["ENV A='$B' C="], &json!({"Env": ["A=$B", "C="]}));
    check(base(), &["WORKDIR ${PATH}/x"], &json!({"Env": ["PATH=/bin", "B=1"], "WorkingDir": "/bin/x"}));
}

#[test]
fn labels_are_merged() {
    let base = json!({"Labels": {"a": "1", "b": "2"}});
    check(
        base,
        &["LABEL b=3 \"com.example.c d\"=\"x y\"", "LABEL e f"],
        &json!({"Labels": {"a": "1", "b": "3", "com.example.c d": "x y", "e": "f"}}),
    );
}

#[test]
fn ports_are_numbers_or_ranges_with_a_protocol() {
    check(
        json!({"ExposedPorts": {"22/tcp": {}}}),
        &["EXPOSE 80 53/UDP 8000-8002"],
        &json!({"ExposedPorts": {
            "22/tcp": {}, "80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {},
        }}),
    );
    check(
        json!({"Env": ["P=99"]}),
        &["EXPOSE $P/sctp"],
        &json!({"Env": ["P=99"], "ExposedPorts": {"99/sctp": {}}}),
    );
    for text in ["80/http", "80:80", "-1", "80-", "9-8", "65536", "x", "1-65535", "80/", "$NONE"] {
        let error = changed(json!({}), &[&format!("EXPOSE {text}")]).unwrap_err();
        assert!(error.to_string().starts_with("EXPOSE: "), "{error}");
    }
}

#[test]
fn directories_are_relative_to_the_one_before() {
    check(json!({"WorkingDir": "/a"}), &["WORKDIR b", "WORKDIR ../c/./d"], &json!({"WorkingDir": "/a/c/d"}));
    check(json!({"WorkingDir": "/a"}), &["WORKDIR /x/../../y z"], &json!({"WorkingDir": "/y z"}));
    check(json!({}), &["WORKDIR ../w"], &json!({"WorkingDir": "/w"}));
}

#[test]
fn the_other_instructions_set_their_fields() {
    check(
        json!({"User": "", "Volumes": null, "OnBuild": null}),
        &[
            "USER 1000:www",
            "VOLUME /data /x",
            "VOLUME [\"/with space\"]",
            "STOPSIGNAL SIGRTMIN+3",
            "HEALTHCHECK --interval=1m CMD ok",
            "ONBUILD RUN make  x",
            "ONBUILD CMD y",
        ],
        &json!({
            "User": "1000:www",
            "Volumes": {"/data": {}, "/x": {}, "/with space": {}},
            "OnBuild": ["RUN make  x", "CMD y"],
            "StopSignal": "SIGRTMIN+3",
            "Healthcheck": {"Test": ["CMD-SHELL", "ok"], "Interval": 60_000_000_000_i64},
        }),
    );
    for signal in ["9", "KILL", "sigterm", "RTMAX-1"] {
        assert!(Change::parse(&format!("STOPSIGNAL {signal}")).is_ok(), "{signal}");
    }
}

#[test]
fn unknown_fields_keep_their_place() {
    let base = json!({"X-First": 1, "Cmd": ["a"], "X-Middle": [2], "Env": ["A=1"], "X-Last": {"k": null}});
    let result = changed(base, &["CMD [\"b\"]", "ENV A=2", "USER me"]).unwrap();
    assert_eq!(
        result.to_string(),
        r#"{"X-First":1,"Cmd":["b"],"X-Middle":[2],"Env":["A=2"],"X-Last":{"k":null},"User":"me"}"#
    );
}

#[test]
fn what_is_wrong_is_named() {
    for (text, part) in [
        ("", "empty"),
        ("  ", "empty"),
        ("=x", "empty"),
        ("RUN make", "`RUN` is no instruction"),
        ("ENV", "ENV: nothing follows"),
        ("env A", "ENV: it has the form NAME=VALUE"),
        ("ENV A=b c", "ENV: `c` is not of the form NAME=VALUE"),
        ("ENV =b", "ENV: a name is empty"),
        ("ENV A='b", "ENV: a single quote"),
        ("LABEL ''=b", "LABEL: a name is empty"),
        ("CMD [1]", "CMD: `1` in the list is no string"),
        ("CMD [\"a\\u0000\"]", "CMD: a NUL byte"),
        ("VOLUME []", "VOLUME: the list is empty"),
        ("VOLUME [\"\"]", "VOLUME: it is empty"),
        ("USER ''", "USER: it is empty"),
        ("STOPSIGNAL SIGNONE", "STOPSIGNAL: `SIGNONE` is no signal"),
        ("STOPSIGNAL 0", "STOPSIGNAL: `0`"),
        ("ONBUILD ONBUILD RUN x", "ONBUILD: ONBUILD cannot"),
        ("CMD a\nCMD b", "CMD: it goes over more than one line"),
    ] {
        let error = Change::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text:?}: {error}");
    }
    let long = format!("CMD {}", "x".repeat(MAX_LENGTH));
    assert!(matches!(Change::parse(&long), Err(ChangeError::TooLong { .. })));
    check(json!({}), &["ENV A=b \\\n  C=d"], &json!({"Env": ["A=b", "C=d"]}));
}

#[test]
fn variables_cannot_make_a_config_explode() {
    let doubling = vec!["ENV A=$A$A"; 64];
    let error = changed(json!({"Env": ["A=0123456789"]}), &doubling).unwrap_err();
    assert!(matches!(error, ChangeError::TooLong { instruction: "ENV", .. }));
}

proptest! {
    #[test]
    fn whatever_is_given_nothing_panics(text in "\\PC*|(CMD|ENV|LABEL|EXPOSE|WORKDIR|VOLUME|HEALTHCHECK|STOPSIGNAL|USER|ONBUILD)[ =]([a-z0-9$'\"{}:+\\\\=\\[\\],/\n -]|\\PC){0,60}") {
        if let Ok(change) = Change::parse(&text) {
            let mut config = Map::new();
            config.insert("Env".to_owned(), json!(["a=b", "A", 3, null]));
            config.insert("Labels".to_owned(), json!("text"));
            drop(apply(&[change.clone(), change], &mut config));
        }
    }
}
