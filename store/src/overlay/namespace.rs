//! User namespaces, and threads with the identity of a file's owner.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;
use rustix::thread::{capabilities, set_capabilities};

use super::Attempt;
use crate::error::IoContext as _;

/// Does something as who owns `directory`, with the capabilities of the caller.
///
/// Overlayfs keeps the identity of who mounted it and creates files with it; through an id-mapped mount only
/// the IDs of the map can create files (`fsuidgid_has_mapping` in the kernel), which root outside is not. The
/// filesystem's user ID belongs to a thread, so this takes one of its own.
pub(super) fn as_owner_of<T: Send>(
    directory: Option<&OwnedFd>,
    action: impl FnOnce() -> Result<T, Attempt> + Send,
) -> Result<T, Attempt> {
    let Some(directory) = directory else { return action() };
    let stat = rustix::fs::fstat(directory)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let before = capabilities(None)?;
            take_identity(stat.st_uid, stat.st_gid)?;
            // The kernel takes the capabilities for files away with the user ID of root.
            set_capabilities(None, before)?;
            action()
        });
        thread.join().unwrap_or_else(|_| panicked())
    })
}

pub(super) fn panicked<T>() -> Result<T, Attempt> {
    let source = io::Error::other("the mounting thread panicked");
    Ok(Err(source).context("mount in", "a thread")?)
}

/// Only of this thread: unlike `setuid`, the C library does not extend these to the process.
#[expect(unsafe_code, reason = "nothing safe offers the filesystem's IDs of a thread")]
fn take_identity(uid: u32, gid: u32) -> Result<(), rustix::io::Errno> {
    // SAFETY: these take and return integers. They tell the IDs before, so a second call, with an ID that
    // is none, tells whether the first one worked.
    let (group, user) = unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        (libc::setfsgid(u32::MAX), libc::setfsuid(u32::MAX))
    };
    if group.cast_unsigned() == gid && user.cast_unsigned() == uid {
        Ok(())
    } else {
        Err(rustix::io::Errno::PERM)
    }
}

/// A user namespace with these maps, in the text form of `/proc/PID/uid_map`.
///
/// Only a process can be in a new namespace, so one is started for a moment. It sends no signal when it ends
/// and is invisible to others who wait for children of this process.
pub(super) fn user_namespace(uids: &str, gids: &str) -> crate::Result<OwnedFd> {
    let (wait, _go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .context("make a pipe for", "a user namespace")?;
    let child = Child::start(&wait).context("start a process in", "a user namespace")?;
    let proc = format!("/proc/{}", child.0);
    for (file, map) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("{proc}/{file}");
        fs::write(&path, map).context("write", &path)?;
    }
    let path = format!("{proc}/ns/user");
    Ok(File::open(&path).context("open", &path)?.into())
}

/// A process in a user namespace of its own that does nothing. It is killed and waited for in the end.
struct Child(libc::pid_t);

impl Child {
    /// The child ends when nobody can write to the pipe any more, should this process be killed.
    #[expect(
        unsafe_code,
        reason = "a new process that runs no other program can only be had from the kernel"
    )]
    fn start(wait: &OwnedFd) -> io::Result<Self> {
        // SAFETY: all zeros is a valid value of this structure of integers: no exit signal, no stack of its
        // own, so that the child goes on with a copy of this one.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = libc::CLONE_NEWUSER as u64;
        let wait = wait.as_raw_fd();
        // SAFETY: without CLONE_VM the child has a copy of the memory and cannot disturb this process. It
        // makes nothing but system calls, since locks may be held by threads that it does not have.
        unsafe {
            let size = std::mem::size_of::<libc::clone_args>();
            match libc::syscall(libc::SYS_clone3, &raw mut arguments, size) {
                -1 => Err(io::Error::last_os_error()),
                0 => {
                    // What else is open are locks of the store, and pipes of others that wait like this.
                    libc::dup2(wait, 0);
                    libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
                    let mut byte = 0_u8;
                    libc::read(0, (&raw mut byte).cast(), 1);
                    libc::_exit(0)
                }
                // Process IDs are 22 bits at most.
                #[expect(clippy::cast_possible_truncation, reason = "a process ID is an `int`")]
                pid => Ok(Self(pid as libc::pid_t)),
            }
        }
    }
}

impl Drop for Child {
    #[expect(unsafe_code, reason = "only wait(2) itself has the flag for children without an exit signal")]
    fn drop(&mut self) {
        // SAFETY: integers, and no pointer to a status. Nobody has waited for the child yet, so that its ID
        // is not that of another process.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            while libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) == -1
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}
