//! A thread whose umask is zero.

use std::io;
use std::marker::PhantomData;

/// Proof that the calling thread's umask does not reach the files it creates.
///
/// The umask belongs to the process, and changing it would show in every other thread. But
/// `unshare(CLONE_FS)` gives one thread a umask (and working directory) of its own, without any
/// privilege. So [`PrivateUmask::enter`] is called once on a thread that does nothing but unpack. Where
/// that is forbidden, as by some seccomp profiles, modes are set after creation instead.
#[derive(Debug)]
pub struct PrivateUmask {
    private: bool,
    /// The thread's, so it must not leave it.
    not_send: PhantomData<*const ()>,
}

impl PrivateUmask {
    /// Gives the calling thread a umask of its own, for good, and sets it to zero.
    pub fn enter() -> Self {
        let private = unshare_fs().is_ok();
        if private {
            rustix::process::umask(rustix::fs::Mode::empty());
        }
        Self { private, not_send: PhantomData }
    }

    /// Whether the mode given to a creating system call is the mode the file gets.
    pub(crate) fn exact(&self) -> bool {
        self.private
    }
}

fn unshare_fs() -> io::Result<()> {
    // SAFETY: CLONE_FS concerns only the working directory, the root and the umask; the table of file
    // descriptors, whose unsharing makes the call unsafe, stays shared.
    #[expect(unsafe_code, reason = "unshare is unsafe because of CLONE_FILES, which is not asked for")]
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use layerstore_tar::{Entry, Writer};

    use super::*;
    use crate::{Limits, Options, OverlayXattr, Ownership, unpack};

    #[test]
    fn modes_are_set_where_the_umask_cannot_be_private() {
        // This thread's umask is private in truth, so that the others keep theirs.
        let _own = PrivateUmask::enter();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let shared = PrivateUmask { private: false, not_send: PhantomData };
        let mut writer = Writer::new(Vec::new());
        for entry in
            [Entry::regular(b"f", 0), Entry::fifo(b"p"), Entry::directory(b"d"), Entry::regular(b"i/f", 0)]
        {
            writer.append(&Entry { mode: 0o666, ..entry }, io::empty()).unwrap();
        }
        let stream = writer.finish().unwrap();
        let (overlay, ownership) = (OverlayXattr::User, Ownership::Current);
        let options = Options { overlay, ownership, limits: Limits::default() };
        let dir = tempfile::tempdir().unwrap();
        unpack(stream.as_slice(), None, dir.path(), &options, &shared).unwrap();
        for (path, mode) in
            [("f", 0o666), ("p", 0o666), ("d", 0o666), ("i", 0o755), ("i/f", 0o666), ("", 0o755)]
        {
            let metadata = dir.path().join(path).metadata().unwrap();
            assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{path}");
        }
    }
}
