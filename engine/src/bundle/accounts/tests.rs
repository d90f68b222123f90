use std::io::Cursor;

use layerstore_oci::ErrorKind;

use super::*;

const USERS: &str = "\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
homeless:x:44:44:::
again:x:45:45::/first:
again:x:46:46::/second:
";

const GROUPS: &str = "\
root:x:0:
adm:x:4:root,www-data
www-data:x:33:www-data
staff:x:50:www-data,other
tape:x:26:other
staff:x:51:
";

fn with(users: Option<&[u8]>, groups: Option<&[u8]>, user: &str) -> Result<Account> {
    account(user, &|path| {
        let file = if path == PASSWD { users } else { groups };
        Ok(file.map(|bytes| Box::new(Cursor::new(bytes.to_vec())) as Box<dyn Read>))
    })
}

fn usual(user: &str) -> Result<Account> {
    with(Some(USERS.as_bytes()), Some(GROUPS.as_bytes()), user)
}

fn found(user: &str) -> (u32, u32, Vec<u32>, String) {
    let account = usual(user).unwrap();
    (account.uid, account.gid, account.groups, account.home)
}

#[track_caller]
fn refused(result: Result<Account>) -> (ErrorKind, String) {
    let error = result.unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn every_form_of_user_is_found() {
    let www = "/var/www".to_owned();
    assert_eq!(found("www-data"), (33, 33, vec![33, 4, 50], www.clone()));
    assert_eq!(found("33"), (33, 33, vec![33, 4, 50], www.clone()));
    assert_eq!(found("www-data:staff"), (33, 50, vec![50], www.clone()));
    assert_eq!(found("www-data:7"), (33, 7, vec![7], www.clone()));
    assert_eq!(found("33:staff"), (33, 50, vec![50], www));
    assert_eq!(found("1234:5678"), (1234, 5678, vec![5678], "/".to_owned()));
    assert_eq!(found("1234:tape"), (1234, 26, vec![26], "/".to_owned()));
}

#[test]
fn nobody_named_is_root() {
    let root = (0, 0, vec![0, 4], "/root".to_owned());
    assert_eq!(found(""), root);
    assert_eq!(found("root"), root);
    assert_eq!(found(":"), root);
    assert_eq!(found(":staff"), (0, 50, vec![50], "/root".to_owned()));
}

#[test]
fn an_id_without_entry_has_group_0() {
    assert_eq!(found("1234"), (1234, 0, vec![0], "/".to_owned()));
    assert_eq!(with(None, None, "1234").unwrap().gid, 0);
    assert_eq!(with(None, None, "").unwrap().home, "/");
}

#[test]
fn the_first_entry_counts() {
    assert_eq!(found("again"), (45, 45, vec![45], "/first".to_owned()));
    assert_eq!(found("homeless").3, "/");
}

#[test]
fn what_is_unknown_is_named_with_its_file() {
    let (kind, text) = refused(usual("nosuch"));
    assert_eq!(
        (kind, text.as_str()),
        (ErrorKind::NotFound, "there is no user `nosuch` in /etc/passwd of the image")
    );
    let (_, text) = refused(usual("root:nosuch"));
    assert_eq!(text, "there is no group `nosuch` in /etc/group of the image");
    let (_, text) = refused(with(None, None, "www-data"));
    assert_eq!(text, "there is no user `www-data` in /etc/passwd of the image");
    // Names of digits are IDs, names that only look like numbers are names.
    for name in ["-1", "+5", "0x10", "1.5", " 0", "www-data "] {
        assert_eq!(refused(usual(name)).1, format!("there is no user `{name}` in /etc/passwd of the image"));
    }
}

#[test]
fn ids_have_a_limit() {
    assert_eq!(found("2147483647").0, 2_147_483_647);
    for user in ["2147483648", "4294967295", "99999999999999999999", "0:2147483648"] {
        assert!(refused(usual(user)).1.contains("out of range"), "{user}");
    }
}

#[test]
fn an_entry_without_usable_ids_does_not_count() {
    let lists = [
        "evil:x:zero:0::/:",
        "evil:x::0::/:",
        "evil:x:0:-1::/:",
        "evil:x:+1:1::/:",
        "evil:x:4294967296:0::/:",
        "evil:x:0",
        "evil",
    ];
    for list in lists {
        assert!(refused(with(Some(list.as_bytes()), None, "evil")).1.contains("no user `evil`"), "{list}");
    }
    let list = b"evil:x:\nevil\nevil:x:ten:www-data\n";
    assert!(refused(with(None, Some(list), "0:evil")).1.contains("no group `evil`"));
}

#[test]
fn odd_lists_are_read() {
    let odd = b"\n\n# comment\n\xff\xfe:x:7:7::/:\r\n  spaced:x:8:9::/home\r\n::::::\nlast:x:10:11::/l";
    assert_eq!(with(Some(odd), None, "spaced").unwrap().gid, 9);
    let last = with(Some(odd), None, "last").unwrap();
    assert_eq!((last.uid, last.home.as_str()), (10, "/l"));
    let home = with(Some(b"a:x:1:1::/h\xff:"), None, "a").unwrap().home;
    assert_eq!(home, "/", "a home that JSON cannot hold");
    // An empty name would be a member of every group that has no members.
    assert_eq!(with(Some(b":x:5:5::/:"), Some(b"g:x:6:"), "5").unwrap().groups, [5]);
}

#[test]
fn huge_lists_are_refused() {
    let line = [b"a:x:1:1:".as_slice(), &vec![b'x'; 70_000], b"::\n"].concat();
    let (kind, text) = refused(with(Some(&line), None, "a"));
    assert_eq!(
        (kind, text.as_str()),
        (ErrorKind::InvalidInput, "/etc/passwd of the image has an entry that is too long")
    );
    // A group may have many members.
    let crowd = [b"g:x:9:".as_slice(), &b"member,".repeat(20_000), b"root\n"].concat();
    assert_eq!(with(Some(USERS.as_bytes()), Some(&crowd), "root").unwrap().groups, [0, 9]);
    let lines = [[b'x'; 999].as_slice(), b"\n"].concat().repeat(17_000);
    let lines = with(Some(&lines), None, "x");
    assert_eq!(refused(lines).1, "/etc/passwd of the image has more than 16 MiB");
    let line = account("x", &|_| Ok(Some(Box::new(io::repeat(b'x')))));
    assert!(refused(line).1.contains("too long"));
}

#[test]
fn more_groups_than_a_process_can_have_are_refused() {
    let groups: String = (0..70_000).fold(String::new(), |list, gid| list + &format!("g:x:{gid}:root\n"));
    let (_, text) = refused(with(Some(USERS.as_bytes()), Some(groups.as_bytes()), "root"));
    assert_eq!(text, "/etc/group of the image has the user in more groups than Linux allows");
}

#[test]
fn a_list_that_cannot_be_read_is_an_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }
    let account = account("1", &|_| Ok(Some(Box::new(Broken))));
    assert_eq!(refused(account).1, "cannot read /etc/passwd of the image");
}
