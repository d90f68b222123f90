//! Locks between processes, and between threads of one.
//!
//! Every lock is one byte of the file `lock`, taken with an open file description lock
//! (`F_OFD_SETLK`): no file to create or to clean up for each, released by the kernel when the
//! holder dies, and exclusive between threads too, since every claim opens the file anew.
//!
//! Keys of different kinds never share a byte, so that the order below holds. Two of one kind share
//! one with probability 2⁻⁵⁷; one process that holds both would wait for itself. Nobody can aim for
//! such a pair, since the bytes depend on a random salt of the store.
//!
//! Order of acquisition, so that no two holders wait for each other: `Layer`, then `Blob`, then
//! `Sweep`; a `Chain` before a `Sweep`; who waits for a `Layer` or a `Blob` holds at most one `Layer`, apart from those whose
//! release depends on nobody else. `Sessions`, `Mounts` and `Schema` are held without waiting for another.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

use layerstore_oci::{ChainId, DiffId, Digest};
use nix::fcntl::{FcntlArg, fcntl};

use crate::error::{IoContext as _, Result};
use crate::layout::Layout;
use crate::look;

/// What can be claimed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Creating or migrating the database; shared while looking whether that is needed.
    Schema,
    /// Starting a session, or looking for dead ones.
    Sessions,
    /// Mounting, unmounting, or looking for rows of mounts that are gone.
    Mounts,
    /// Unpacking the layer with this diff ID.
    Layer(DiffId),
    /// Making the fix-up of this stack.
    Chain(ChainId),
    /// Fetching the blob with this digest.
    Blob(Digest),
    /// The time between a rename into place and the commit of its row. Publishers share it; who
    /// throws away files that have no row holds it alone.
    Sweep,
}

/// Who may hold a lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All who ask for the same.
    Shared,
    /// Nobody else.
    Exclusive,
}

impl Key {
    fn offset(&self, salt: &str) -> i64 {
        let (kind, name) = match self {
            Self::Schema => return 0,
            Self::Sessions => return 1,
            Self::Sweep => return 2,
            Self::Mounts => return 3,
            Self::Layer(diff_id) => (4, diff_id.to_string()),
            Self::Chain(chain) => (5, chain.to_string()),
            Self::Blob(digest) => (6, digest.to_string()),
        };
        let digest = Digest::sha256_of(format!("{salt} {name}").as_bytes());
        // 60 bits of the digest, the lowest three for the kind; the top of the range is left free.
        (i64::from_str_radix(&digest.hex()[..15], 16).unwrap_or(0) & !7) | kind
    }
}

/// A held lock, released when dropped.
#[derive(Debug)]
#[must_use = "a claim is released when it is dropped"]
pub struct Claim {
    _file: File,
}

impl Claim {
    /// Takes the lock, waiting for its holder. `salt` is the store's; [`Key::Schema`] needs none.
    pub(crate) fn acquire(layout: &Layout, salt: &str, key: &Key, mode: Mode) -> Result<Self> {
        crate::db::assert_outside_write_transaction();
        let (file, mode) = open(layout, mode)?;
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&byte(key.offset(salt), mode))) {
                Ok(_) => return Ok(Self { _file: file }),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("lock", layout.locks()),
            }
        }
    }

    /// Takes the lock if nobody holds it.
    pub(crate) fn try_acquire(layout: &Layout, salt: &str, key: &Key) -> Result<Option<Self>> {
        let (file, mode) = open(layout, Mode::Exclusive)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&byte(key.offset(salt), mode))) {
            Ok(_) => Ok(Some(Self { _file: file })),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(None),
            Err(errno) => Err(errno).context("lock", layout.locks()),
        }
    }
}

/// Opens the file. Who cannot write does nothing that others who cannot must not see, so all of them share any lock;
/// it still keeps out who writes from elsewhere.
fn open(layout: &Layout, mode: Mode) -> Result<(File, Mode)> {
    let path = layout.locks();
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    match opened {
        Err(error) if look::is_refused(&error) => {
            look::open_locks(layout).map(|file| (file, Mode::Shared)).context("open", &path)
        }
        opened => opened.map(|file| (file, mode)).context("open", &path),
    }
}

/// The lock of one byte.
#[expect(clippy::cast_possible_truncation, reason = "the constants are small, and of type int in C")]
pub(crate) fn byte(offset: i64, mode: Mode) -> nix::libc::flock {
    let kind = match mode {
        Mode::Shared => nix::libc::F_RDLCK,
        Mode::Exclusive => nix::libc::F_WRLCK,
    };
    nix::libc::flock {
        l_type: kind as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: offset,
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_excludes_other_threads_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        let key = Key::Blob(Digest::sha256_of(b"x"));
        let held = Claim::acquire(&layout, "", &key, Mode::Exclusive).unwrap();
        assert!(Claim::try_acquire(&layout, "", &key).unwrap().is_none());
        assert!(Claim::try_acquire(&layout, "", &Key::Schema).unwrap().is_some());
        drop(held);
        assert!(Claim::try_acquire(&layout, "", &key).unwrap().is_some());
    }

    #[test]
    fn privileged_who_cannot_write_shares_locks_and_keeps_out_who_can() {
        if !layerstore_testkit::require::root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        let held = Claim::acquire(&layout, "", &Key::Sessions, Mode::Exclusive).unwrap();
        let view = layerstore_testkit::disk::Disk::read_only_view(dir.path());
        let seen = Layout::new(view.path().to_owned());
        assert!(Claim::try_acquire(&seen, "", &Key::Sessions).unwrap().is_none());
        drop(held);
        let one = Claim::acquire(&seen, "", &Key::Sessions, Mode::Exclusive).unwrap();
        let two = Claim::acquire(&seen, "", &Key::Sessions, Mode::Exclusive).unwrap();
        assert!(Claim::try_acquire(&layout, "", &Key::Sessions).unwrap().is_none());
        drop((one, two));
        assert!(Claim::try_acquire(&layout, "", &Key::Sessions).unwrap().is_some());
    }

    #[test]
    fn kinds_of_keys_never_share_a_byte() {
        for number in 0..1000_u32 {
            let digest = Digest::sha256_of(&number.to_le_bytes());
            let keys =
                [Key::Layer(digest.clone().into()), Key::Chain(digest.clone().into()), Key::Blob(digest)];
            assert_eq!(keys.each_ref().map(|key| key.offset("salt") & 7), [4, 5, 6]);
            assert_ne!(keys[0].offset("salt"), keys[0].offset("another"));
        }
        assert!([Key::Schema, Key::Sessions, Key::Sweep, Key::Mounts].iter().all(|key| key.offset("") < 4));
    }

    #[test]
    fn publishers_share_the_sweep_lock() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        let one = Claim::acquire(&layout, "", &Key::Sweep, Mode::Shared).unwrap();
        let two = Claim::acquire(&layout, "", &Key::Sweep, Mode::Shared).unwrap();
        assert!(Claim::try_acquire(&layout, "", &Key::Sweep).unwrap().is_none());
        drop((one, two));
        assert!(Claim::try_acquire(&layout, "", &Key::Sweep).unwrap().is_some());
    }
}
