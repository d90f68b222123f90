//! What goes wrong is told, and then nothing is mounted.

use std::process::Command;

use layerstore_oci::ErrorKind;

use super::*;

#[test]
fn a_target_that_is_no_directory_is_told_first() {
    let fixture = Fixture::new();
    let stack = fixture.stack(fixture.lowers(1));
    let mount =
        |target: &Path| fixture.store.mount_stack(&stack, target, &MountOptions::default()).unwrap_err();
    let missing = fixture.dir.path().join("missing");
    let error = mount(&missing);
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let file = fixture.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let link = fixture.dir.path().join("link");
    std::os::unix::fs::symlink(&fixture.target, &link).unwrap();
    for target in [file, link] {
        let error = mount(&target);
        assert!(matches!(error, Error::NotADirectory { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert!(!fixture.is_mounted());
}

#[test]
fn privileged_a_tree_that_is_not_there_is_named() {
    if !require::root() {
        return;
    }
    let fixture = Fixture::new();
    let mut stack = fixture.stack(fixture.lowers(3));
    fs::rename(&stack.lowers[1], stack.lowers[1].with_extension("gone")).unwrap();
    let one = Stack { lowers: vec![stack.lowers[1].clone()], upper: None, plain: true };
    stack.plain = true;
    for api in [MountApi::Newest, MountApi::Classic] {
        for stack in [&stack, &one] {
            let error = fixture.mount(stack, &api.into()).unwrap_err();
            let Error::Io { path, .. } = &error else { panic!("{error}") };
            assert_eq!(*path, one.lowers[0]);
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    }
    assert!(!fixture.is_mounted());
}

const TEST: &str = "overlay::tests::privilege::";

/// Runs an ignored test of this module by another program.
fn run(program: &[&str], test: &str) {
    let output = Command::new(program[0])
        .args(&program[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{TEST}{test}"), "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && told.contains("1 passed"), "{program:?}: {told}");
}

#[test]
fn privileged_who_must_not_mount_is_told() {
    if require::root() {
        run(&["setpriv", "--bounding-set", "-sys_admin"], "without_privilege");
    }
}

#[test]
#[ignore = "run by privileged_who_must_not_mount_is_told"]
fn without_privilege() {
    let fixture = Fixture::new();
    let stack = fixture.stack(fixture.lowers(2));
    let bind = Stack { lowers: vec![stack.lowers[0].clone()], upper: None, plain: true };
    let id_map = Some(IdMap::parse("0:100000:1", "0:100000:1").unwrap());
    for stack in [stack, bind] {
        for api in [MountApi::Newest, MountApi::Classic] {
            for id_map in [None, id_map.clone()] {
                let options = MountOptions { api, id_map, ..MountOptions::default() };
                let error = fixture.mount(&stack, &options).unwrap_err();
                assert!(matches!(error, Error::NoPrivilege { .. }), "{options:?}: {error:?}");
                assert_eq!(error.kind(), ErrorKind::Unsupported);
            }
        }
    }
    assert!(!fixture.is_mounted());
}

#[test]
fn privileged_root_of_a_user_namespace_mounts() {
    if require::root() {
        run(&["unshare", "--user", "--map-root-user", "--mount"], "in_a_user_namespace");
    }
}

#[test]
#[ignore = "run by privileged_root_of_a_user_namespace_mounts"]
fn in_a_user_namespace() {
    let options = MountOptions { user_xattrs: true, volatile: true, ..MountOptions::default() };
    for way in ways(&options) {
        let fixture = Fixture::new();
        let stack = fixture.stack(fixture.lowers(3));
        fixture.mount_by(way, &stack, &options);
        fs::remove_file(fixture.target.join("shared")).unwrap();
        let shown = shown_options(&fixture.target);
        assert!(shown.contains("userxattr"), "{shown}");
        fixture.unmount();
        assert!(clear_volatile(stack.upper.as_ref().unwrap()).unwrap());
        fixture.mount(&stack, &options).unwrap();
        assert!(!fixture.target.join("shared").exists());
        fixture.unmount();

        // The root of the filesystem is not root of this namespace.
        let id_map = Some(IdMap::parse("0:0:1", "0:0:1").unwrap());
        for stack in [&stack, &Stack { lowers: vec![stack.lowers[0].clone()], upper: None, plain: true }] {
            let options =
                MountOptions { id_map: id_map.clone(), user_xattrs: true, ..MountOptions::default() };
            let error = fixture.mount(stack, &options).unwrap_err();
            assert!(matches!(error, Error::NotSupported { .. }), "{error:?}");
        }
    }
    for api in [MountApi::Newest, MountApi::Classic] {
        let fixture = Fixture::new();
        let stack = Stack { lowers: fixture.lowers(1), upper: None, plain: true };
        fixture.mount(&stack, &api.into()).unwrap();
        assert!(fs::write(fixture.target.join("shared"), "").is_err());
        fixture.unmount();
    }
}
