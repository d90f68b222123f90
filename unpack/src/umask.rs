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
