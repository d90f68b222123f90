//! Archives by this crate's own writer.

use layerstore_tar::{Entry, EntryKind, Segment, Timestamp, Writer};
use layerstore_testkit::rawtar::{self, Kind, Member, Names};
use layerstore_testkit::rng::Rng;

pub(crate) fn archive(rng: &mut Rng) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for member in rawtar::members(rng, Names::Any) {
        writer.append(&entry(&member), &member.data[..]).unwrap();
    }
    writer.finish().unwrap()
}

fn entry(member: &Member) -> Entry {
    let time = |(seconds, nanoseconds)| Timestamp { seconds, nanoseconds };
    let mut entry = Entry::regular(&member.path, member.data.len() as u64);
    entry.kind = match member.kind {
        Kind::File => EntryKind::Regular,
        Kind::HardLink => EntryKind::HardLink,
        Kind::Symlink => EntryKind::Symlink,
        Kind::CharDevice => EntryKind::CharDevice,
        Kind::BlockDevice => EntryKind::BlockDevice,
        Kind::Directory => EntryKind::Directory,
        Kind::Fifo => EntryKind::Fifo,
    };
    if let Some((size, segments)) = &member.sparse {
        entry.size = *size;
        entry.sparse = Some(segments.iter().map(|&(offset, len)| Segment { offset, len }).collect());
    }
    entry.link.clone_from(&member.link);
    (entry.mode, entry.uid, entry.gid) = (member.mode, member.uid, member.gid);
    (entry.mtime, entry.atime) = (time(member.mtime), member.atime.map(time));
    (entry.uname, entry.gname) = member.names.clone();
    entry.device = member.device;
    entry.xattrs.clone_from(&member.xattrs);
    entry
}
