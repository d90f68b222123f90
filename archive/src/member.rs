//! Names of members and the links between them.

use std::collections::{BTreeMap, BTreeSet};

use layerstore_tar::{Entry, EntryKind};

use crate::Error;

/// An archive of a thousand images with fifty blobs each has half as many.
const MAX_MEMBERS: usize = 100_000;
/// Text of all names and link targets; blob names take 80 bytes.
const MAX_NAME_BYTES: usize = 16 << 20;
/// Linux follows as many symbolic links in one path (`MAXSYMLINKS`).
pub(crate) const MAX_LINKS: usize = 40;
/// How many names at the top of an archive are of interest.
pub(crate) const MAX_TOP_LEVEL: usize = 32;

/// Access to the members of an archive, however it arrived. What has no members, such as a registry, has none of any name.
pub trait Members {
    /// The regular member that `name` stands for, links followed; none if there is none.
    ///
    /// Two names of one member give the same result, so it can serve as a key.
    fn resolve(&self, _name: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// The bytes of a member, none if there is none, [`Error::TooLarge`] if it has more than
    /// `limit` bytes.
    fn read_small(&self, _name: &str, _limit: u64) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }

    /// Some of the first components of the members' names: for telling what an archive is that
    /// holds no image.
    fn top_level(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The name of a member as others refer to it: without `./`, doubled or trailing slashes.
///
/// None for what cannot name a member: names that are empty, absolute, not UTF-8, or have a `..`.
pub fn normalise_member(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    if path.starts_with('/') {
        return None;
    }
    let mut name = String::with_capacity(path.len());
    for component in path.split('/') {
        match component {
            "" | "." => continue,
            ".." => return None,
            _ => {}
        }
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(component);
    }
    (!name.is_empty()).then_some(name)
}

/// The name that a symbolic link `from`, itself a normalised name, leads to; none if that is
/// outside the archive.
pub(crate) fn follow(from: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    if target.starts_with('/') {
        return None;
    }
    let mut components: Vec<&str> = from.split('/').collect();
    components.pop();
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()?),
            _ => components.push(component),
        }
    }
    (!components.is_empty()).then(|| components.join("/"))
}

/// The members of a tar archive by name, each regular one with a `T` that says where its bytes
/// are. Of members with the same name the last one counts.
#[derive(Debug, Clone)]
pub struct MemberMap<T> {
    members: BTreeMap<String, Member<T>>,
    name_bytes: usize,
}

#[derive(Debug, Clone)]
enum Member<T> {
    File(T),
    /// Normalised name of what a symbolic or hard link stands for.
    Link(String),
}

impl<T> Default for MemberMap<T> {
    fn default() -> Self {
        Self { members: BTreeMap::new(), name_bytes: 0 }
    }
}

impl<T> MemberMap<T> {
    /// The regular member `name`, links followed, and its name after that.
    pub fn get(&self, name: &str) -> Option<(&str, &T)> {
        let name = normalise_member(name.as_bytes())?;
        let mut found = self.members.get_key_value(&name)?;
        for _ in 0..MAX_LINKS {
            match found {
                (name, Member::File(value)) => return Some((name, value)),
                (_, Member::Link(target)) => found = self.members.get_key_value(target)?,
            }
        }
        None
    }

    /// All regular members, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.members.iter().filter_map(|(name, member)| match member {
            Member::File(value) => Some((name.as_str(), value)),
            Member::Link(_) => None,
        })
    }

    /// All regular members with what they carry, in order of their names.
    pub fn into_files(self) -> impl Iterator<Item = (String, T)> {
        self.members.into_iter().filter_map(|(name, member)| match member {
            Member::File(value) => Some((name, value)),
            Member::Link(_) => None,
        })
    }

    /// See [`Members::top_level`].
    pub fn top_level(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        let mut after = String::new();
        while names.len() < MAX_TOP_LEVEL
            && let Some((name, _)) = self.members.range(after..).next()
        {
            let first = name.split('/').next().unwrap_or_default();
            // What is below `a/` sorts before `a0`: skip it all at once.
            after = first.to_owned() + if first.len() < name.len() { "0" } else { "\0" };
            names.insert(first.to_owned());
        }
        names.into_iter().collect()
    }

    /// Records a file.
    pub(crate) fn insert_file(&mut self, name: String, value: T) -> Result<(), Error> {
        self.insert(name, Member::File(value), 0)
    }

    /// Records a link, and ignores whatever is neither file nor link. A link to the outside stands
    /// for nothing.
    pub(crate) fn insert_other(&mut self, name: String, entry: &Entry) -> Result<(), Error> {
        let target = match entry.kind {
            EntryKind::Symlink => follow(&name, &entry.link),
            EntryKind::HardLink => normalise_member(&entry.link),
            _ => return Ok(()),
        };
        let Some(target) = target else {
            self.members.remove(&name);
            return Ok(());
        };
        let len = target.len();
        self.insert(name, Member::Link(target), len)
    }

    fn insert(&mut self, name: String, member: Member<T>, extra: usize) -> Result<(), Error> {
        // Names that come again are counted again, which does no harm to archives that are real.
        self.name_bytes = self.name_bytes.saturating_add(name.len()).saturating_add(extra);
        if self.name_bytes > MAX_NAME_BYTES {
            return Err(Error::TooManyMembers { limit: "16 MiB of names" });
        }
        self.members.insert(name, member);
        if self.members.len() > MAX_MEMBERS {
            return Err(Error::TooManyMembers { limit: "100,000" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_or_refused() {
        for (path, name) in [
            ("a", Some("a")),
            ("./a//b/./c", Some("a/b/c")),
            ("a/", Some("a")),
            ("...", Some("...")),
            ("", None),
            ("./", None),
            ("/a", None),
            ("../a", None),
            ("a/../b", None),
            ("a/..", None),
        ] {
            assert_eq!(normalise_member(path.as_bytes()).as_deref(), name, "{path}");
        }
        assert_eq!(normalise_member(b"a\xff"), None);
    }

    #[test]
    fn links_are_followed_inside_only() {
        for (from, target, name) in [
            ("b/layer.tar", "../a/layer.tar", Some("a/layer.tar")),
            ("b/layer.tar", "x", Some("b/x")),
            ("b", "./a/./c", Some("a/c")),
            ("b", "../a", None),
            ("b", "/a", None),
            ("a/b/c", "../../..", None),
            ("a/b", "..", None),
        ] {
            assert_eq!(follow(from, target.as_bytes()).as_deref(), name, "{from} -> {target}");
        }
    }

    fn map(names: &[&str]) -> MemberMap<usize> {
        let mut map = MemberMap::default();
        for (value, name) in names.iter().enumerate() {
            map.insert_file((*name).to_owned(), value).unwrap();
        }
        map
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let mut map = map(&["a", "b", "a"]);
        assert_eq!(map.get("./a"), Some(("a", &2)));
        map.insert_other("a".into(), &Entry::symlink(b"a", b"b")).unwrap();
        assert_eq!(map.get("a"), Some(("b", &1)));
        map.insert_other("a".into(), &Entry::symlink(b"a", b"/etc/passwd")).unwrap();
        assert_eq!(map.get("a"), None);
        assert_eq!(map.iter().count(), 1);
        assert_eq!(map.into_files().collect::<Vec<_>>(), [("b".to_owned(), 1)]);
    }

    #[test]
    fn loops_end() {
        let mut map = map(&[]);
        map.insert_other("a".into(), &Entry::symlink(b"a", b"b")).unwrap();
        map.insert_other("b".into(), &Entry::hard_link(b"b", b"a")).unwrap();
        map.insert_other("c".into(), &Entry::hard_link(b"c", b"c")).unwrap();
        assert_eq!((map.get("a"), map.get("c")), (None, None));
    }

    #[test]
    fn the_top_level_is_listed_once_each() {
        let map = map(&["etc/a", "etc/b/c", "etc", "etc.d/x", "etc0", "usr/bin/x", "z"]);
        assert_eq!(map.top_level(), ["etc", "etc.d", "etc0", "usr", "z"]);
    }

    #[test]
    fn members_are_bounded() {
        let mut map: MemberMap<()> = MemberMap::default();
        let result = (0..=MAX_MEMBERS).try_for_each(|number| map.insert_file(number.to_string(), ()));
        assert!(matches!(result, Err(Error::TooManyMembers { .. })));
        let mut map: MemberMap<()> = MemberMap::default();
        let result = (0..5000).try_for_each(|_| map.insert_file("x".repeat(4096), ()));
        assert!(matches!(result, Err(Error::TooManyMembers { .. })));
    }
}
