//! Owners, modes, times and extended attributes.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use layerstore_testkit::require;

use super::*;

/// `cap_net_raw+ep` in revision 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access ACL with user `1234:rwx` and the mask `rwx`.
fn acl(mask: u8) -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1u8, 7u8, u32::MAX), (2, 7, 1234), (4, 5, u32::MAX), (0x10, mask, u32::MAX), (0x20, 0, u32::MAX)]
    {
        acl.extend_from_slice(&[tag, 0, permissions, 0]);
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

#[test]
fn privileged_set_user_id_and_capabilities_survive_the_change_of_owner() {
    if !require::root() {
        return;
    }
    let tree = apply(&[
        file("f", "data").owner(1000, 2000).mode(0o6755).xattr("security.capability", CAPABILITY).mtime(5, 6),
        fifo("p").owner(1000, 2000).mode(0o6711),
        dir("d").owner(1000, 2000).mode(0o7777).xattr("user.k", "v"),
        file("d/inside", ""),
        dir("d/below"),
        symlink("s", "f").owner(1000, 2000).mtime(7, 8).xattr("trusted.k", "v"),
    ]);
    let snapshot = tree.snapshot();
    for (path, mode) in [("f", 0o6755), ("p", 0o6711), ("d", 0o7777), ("s", 0o777)] {
        let entry = snapshot.at(path);
        assert_eq!((entry.uid, entry.gid, entry.mode), (1000, 2000, mode), "{path}");
    }
    assert_eq!(snapshot.at("f").xattrs[&b"security.capability"[..]], CAPABILITY);
    assert_eq!(snapshot.at("f").mtime, (5, 6));
    assert_eq!(snapshot.at("s").mtime, (7, 8));
    assert_eq!(snapshot.at("s").xattrs[&b"trusted.k"[..]], b"v");
    // Nothing is inherited from the set-group-ID directory.
    assert_eq!((snapshot.at("d/inside").gid, snapshot.at("d/below").gid), (0, 0));
    assert_eq!(snapshot.at("d/below").mode, 0o755);
}

#[test]
fn privileged_nothing_is_inherited_from_where_the_tree_is() {
    if !require::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("tree");
    std::fs::create_dir(&target).unwrap();
    std::os::unix::fs::chown(&target, None, Some(4321)).unwrap();
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o2775)).unwrap();
    rustix::fs::setxattr(&target, "system.posix_acl_default", &acl(7), XattrFlags::empty()).unwrap();
    let stream = tar(&[file("implied/f", ""), super::dir("d")]);
    let tree = unpack_in(dir, &stream, None, &options()).unwrap();
    for (path, entry) in tree.snapshot().entries {
        assert_eq!((entry.uid, entry.gid), (0, 0), "{}", path.escape_ascii());
        assert!(entry.xattrs.is_empty(), "{}: {:?}", path.escape_ascii(), entry.xattrs);
        assert_eq!(entry.mode & 0o7000, 0, "{}", path.escape_ascii());
    }
    assert_eq!(tree.snapshot().at("").mode, 0o755);
}

#[test]
fn privileged_access_control_lists_are_kept_and_the_mode_has_the_last_word() {
    if !require::root() {
        return;
    }
    let minimal =
        [&[2, 0, 0, 0][..], &[1, 0, 7, 0], &[255; 4], &[4, 0, 7, 0], &[255; 4], &[0x20, 0, 7, 0], &[255; 4]];
    let tree = apply(&[
        file("f", "").mode(0o770).xattr("system.posix_acl_access", acl(7)),
        dir("d")
            .mode(0o750)
            .xattr("system.posix_acl_access", acl(5))
            .xattr("system.posix_acl_default", acl(7)),
        file("d/plain", "").mode(0o640),
        file("other-mode", "").mode(0o600).xattr("system.posix_acl_access", minimal.concat()),
        fifo("p").mode(0o600).xattr("system.posix_acl_access", minimal.concat()),
    ]);
    let snapshot = tree.snapshot();
    assert_eq!(snapshot.at("f").xattrs[&b"system.posix_acl_access"[..]], acl(7));
    assert_eq!(snapshot.at("d").xattrs[&b"system.posix_acl_access"[..]], acl(5));
    assert_eq!(snapshot.at("d").xattrs[&b"system.posix_acl_default"[..]], acl(7));
    assert!(snapshot.at("d/plain").xattrs.is_empty());
    for (path, mode) in [("f", 0o770), ("d", 0o750), ("d/plain", 0o640), ("other-mode", 0o600), ("p", 0o600)]
    {
        assert_eq!(snapshot.at(path).mode, mode, "{path}");
    }
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    // `enter` gives this thread a umask of its own to change, and the thread that unpacks inherits it.
    let _umask = PrivateUmask::enter();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let tree = apply(&[
        file("f", "").mode(0o666),
        dir("d").mode(0o777),
        file("implied/x", "").mode(0o622),
        fifo("p").mode(0o622),
    ]);
    let snapshot = tree.snapshot();
    for (path, mode) in
        [("f", 0o666), ("d", 0o777), ("implied", 0o755), ("implied/x", 0o622), ("p", 0o622), ("", 0o755)]
    {
        assert_eq!(snapshot.at(path).mode, mode, "{path}");
    }
}

#[test]
fn times_are_exact_to_the_nanosecond() {
    let times =
        [(1_700_000_000, 123_456_789), (-1, 999_999_999), (-2_000_000_000, 1), (0, 0), (15_032_385_000, 5)];
    for (seconds, nanoseconds) in times {
        let tree = apply(&[
            dir("./").mtime(seconds, nanoseconds),
            dir("d").mtime(seconds, nanoseconds),
            file("d/f", "data").mtime(seconds, nanoseconds),
            symlink("d/s", "nowhere").mtime(seconds, nanoseconds),
            fifo("d/p").mtime(seconds, nanoseconds),
            hard_link("d/h", "d/f").mtime(1, 1),
            dir("d/d").mtime(seconds, nanoseconds),
            file("d/d/late", "").mtime(seconds, nanoseconds),
        ]);
        for (path, entry) in tree.snapshot().entries {
            assert_eq!(entry.mtime, (seconds, nanoseconds.into()), "{}", path.escape_ascii());
        }
    }
    // Far beyond what any filesystem stores: as late as it can, but no failure.
    for seconds in [i64::MIN, i64::MAX] {
        apply(&[file("f", "").mtime(seconds, 0), dir("d").mtime(seconds, 0)]);
    }
}

#[test]
fn a_directory_that_may_not_be_written_gets_its_children() {
    let tree = apply(&[
        dir("d").mode(0o555).mtime(9, 9),
        dir("d/e").mode(0o500),
        file("d/e/f", "data").mode(0o444),
        file("d/g", "").mode(0o400),
    ]);
    let snapshot = tree.snapshot();
    assert_eq!(snapshot.at("d").mode, 0o555);
    assert_eq!(snapshot.at("d").mtime, (9, 9));
    assert_eq!(snapshot.at("d/e").mode, 0o500);
    assert_eq!(snapshot.at("d/e/f").mode, 0o444);
    // So that it can be removed.
    std::fs::set_permissions(tree.path("d"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(tree.path("d/e"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_is_not_listed_is_implied_with_one_meaning() {
    let tree = apply(&[file("a/b/f", ""), dir("c/d").mode(0o700), dir("a").mode(0o711).mtime(3, 3)]);
    assert_eq!(tree.implied(), ["", "a/b", "c"]);
    let snapshot = tree.snapshot();
    for path in ["", "a/b", "c"] {
        let entry = snapshot.at(path);
        assert_eq!((entry.mode, entry.mtime), (0o755, (0, 0)), "{path}");
        assert_eq!((u64::from(entry.uid), u64::from(entry.gid)), own_ids(), "{path}");
    }
    assert_eq!((snapshot.at("a").mode, snapshot.at("a").mtime), (0o711, (3, 3)));
    assert_eq!(snapshot.at("c/d").mode, 0o700);
}

#[test]
fn the_root_is_what_its_entry_says() {
    for name in ["./", ".", "/", "//."] {
        let tree = apply(&[dir(name).mode(0o1711).mtime(4, 5).xattr("user.k", "v"), file("f", "")]);
        let snapshot = tree.snapshot();
        assert_eq!((snapshot.at("").mode, snapshot.at("").mtime), (0o1711, (4, 5)), "{name}");
        assert_eq!(snapshot.at("").xattrs[&b"user.k"[..]], b"v");
        assert_eq!(tree.implied(), [""; 0]);
        assert_eq!(tree.usage().inodes, 2);
    }
    assert_eq!(apply(&[file("f", "")]).implied(), [""]);
}

#[test]
fn attributes_of_any_name_are_kept_and_those_of_overlayfs_are_escaped() {
    let prefix = if options().overlay == OverlayXattr::Trusted { "trusted" } else { "user" };
    let own = |rest: &str| format!("{prefix}.overlay.{rest}");
    let tree = apply(&[
        file("f", "")
            .xattr("user.empty", "")
            .xattr("user.binary", [0, 255, b'\n', b'='])
            .xattr(b"user.\xff\xfe", "not UTF-8")
            .xattr("user.with=sign", "v")
            .xattr(own("whiteout"), "y"),
        dir("d").xattr(own("opaque"), "y").xattr(own("redirect"), "/etc").xattr(own("overlay.x"), "1"),
    ]);
    let snapshot = tree.snapshot();
    let xattrs = &snapshot.at("f").xattrs;
    assert_eq!(xattrs[&b"user.empty"[..]], b"");
    assert_eq!(xattrs[&b"user.binary"[..]], [0, 255, b'\n', b'=']);
    assert_eq!(xattrs[&b"user.\xff\xfe"[..]], b"not UTF-8");
    assert_eq!(xattrs[&b"user.with=sign"[..]], b"v");
    assert!(!is_opaque(&tree.path("d")));
    for (path, name, value) in [
        ("d", "overlay.opaque", "y"),
        ("d", "overlay.redirect", "/etc"),
        ("d", "overlay.overlay.x", "1"),
        ("f", "overlay.whiteout", "y"),
    ] {
        let mut buffer = [0; 64];
        let length = rustix::fs::lgetxattr(tree.path(path), own(name), &mut buffer[..]).unwrap();
        assert_eq!(&buffer[..length], value.as_bytes(), "{name}");
        let plain = name.strip_prefix("overlay.").unwrap();
        let plain = rustix::fs::lgetxattr(tree.path(path), own(plain), &mut buffer[..]);
        assert_eq!(plain, Err(rustix::io::Errno::NODATA), "{name}");
    }
    assert_eq!(tree.unpacked.lost.xattrs, 0);
}

#[test]
fn only_attributes_that_are_not_supported_are_lost() {
    let tree = apply(&[file("f", "").xattr("nobody.knows", "v").xattr("user.k", "v")]);
    assert_eq!(tree.unpacked.lost.xattrs, 1);
    assert_eq!(tree.snapshot().at("f").xattrs.len(), 1);
    let long = format!("user.{}", "x".repeat(300));
    let Err(Error::Entry { entry, .. }) = try_apply(&[file("f", "").xattr(long, "v")]) else {
        panic!("a name that is too long is no lack of support");
    };
    assert_eq!(entry, "f");
}

#[test]
fn privileged_a_filesystem_without_attributes_loses_them_only() {
    if !require::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("tree");
    std::fs::create_dir(&target).unwrap();
    // ramfs has no extended attributes at all.
    rustix::mount::mount("none", &target, "ramfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let stream =
        tar(&[file("f", "data").xattr("user.k", "v").owner(7, 8), super::dir("d").xattr("user.k", "v")]);
    let tree = unpack_in(dir, &stream, None, &options());
    let found = tree.map(|tree| {
        let metadata = std::fs::metadata(tree.path("f")).unwrap();
        let target = tree.path("");
        (tree, target, metadata)
    });
    if let Ok((_, target, _)) = &found {
        rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    let (tree, _, metadata) = found.unwrap();
    assert_eq!(tree.unpacked.lost.xattrs, 2);
    assert_eq!((metadata.uid(), metadata.gid(), metadata.len()), (7, 8, 4));
}

#[test]
fn names_are_bytes_and_may_be_as_long_as_the_system_allows() {
    let component = vec![b'n'; 255];
    let mut long = component.clone();
    while long.len() + 256 < 4096 {
        long.push(b'/');
        long.extend_from_slice(&component);
    }
    for name in [b"\xff\xfe\x80".as_slice(), b"a\nb\\c\"", "\u{1F4A5}".as_bytes(), &component, &long] {
        let tree = apply(&[file(name, "data")]);
        assert_eq!(tree.snapshot().entries[name].size, 4);
        assert_eq!(tree.implied().len(), 1 + name.iter().filter(|byte| **byte == b'/').count());
    }
    let Err(error) = try_apply(&[file([b'n'; 256], "")]) else { panic!("256 bytes are too many") };
    assert!(error.to_string().contains("nnn"), "{error}");
}

#[test]
fn a_path_may_have_more_directories_than_a_process_may_have_files() {
    let deep = [b"d/".repeat(2046), b"f".to_vec()].concat();
    let through = [b"l/".as_slice(), &b"d/".repeat(1046), b"g"].concat();
    let target = b"d/".repeat(1000);
    let items = [file(deep, "data"), symlink("l", target), file(through, ""), file("d/last", "")];
    let tree = unpack_with(&tar(&items), None, &options()).unwrap();
    assert_eq!(tree.implied().len(), 2047);
    // What recurses runs out of stack or of files here.
    let mut find = std::process::Command::new("find");
    let found = find.arg(tree.path("")).args(["-type", "f", "-size", "-5c"]).output().unwrap();
    assert_eq!(found.stdout.iter().filter(|byte| **byte == b'\n').count(), 3);
    let removed = std::process::Command::new("rm").arg("-rf").arg(tree.path("d")).status().unwrap();
    assert!(removed.success());
}

#[test]
fn owners_that_no_system_has_are_refused() {
    for owner in [1 << 32, u64::from(u32::MAX), i64::MAX as u64] {
        assert!(refusal(&[file("f", "").owner(owner, 0)]).contains("`f`"));
        assert!(refusal(&[dir("d").owner(0, owner)]).contains("`d`"));
    }
    let negative = layerstore_testkit::layer::LayerBuilder::new(layerstore_testkit::layer::Compression::None)
        .entry(layerstore_testkit::layer::Entry::file("f", "").pax("uid", "-1"))
        .finish();
    assert!(unpack_with(&negative.blob, None, &options()).is_err());
}
