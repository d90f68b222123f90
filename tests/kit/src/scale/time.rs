//! Timing whole processes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command takes, from its start to its end.
#[derive(Debug, Clone)]
pub struct Times {
    /// Each run, the shortest first.
    pub elapsed: Vec<Duration>,
    /// What it computed in each run, the least first: the same on a machine that is busy with other things.
    pub cpu: Vec<Duration>,
}

impl Times {
    /// The run of which as many are faster as are slower.
    pub fn median(&self) -> Duration {
        self.elapsed[self.elapsed.len() / 2]
    }

    /// The same of the time of the processor.
    pub fn median_cpu(&self) -> Duration {
        self.cpu[self.cpu.len() / 2]
    }
}

/// Runs each of `commands`, which must succeed; the first only warms up.
pub fn time(commands: impl IntoIterator<Item = Command>) -> Times {
    let mut times = Times { elapsed: Vec::new(), cpu: Vec::new() };
    for (number, mut command) in commands.into_iter().enumerate() {
        let (elapsed, cpu) = run(&mut command);
        if number > 0 {
            times.elapsed.push(elapsed);
            times.cpu.push(cpu);
        }
    }
    times.elapsed.sort();
    times.cpu.sort();
    times
}

#[expect(clippy::zombie_processes, reason = "it is waited for by its ID, which also tells what it used")]
fn run(command: &mut Command) -> (Duration, Duration) {
    // What it prints is looked at elsewhere, and reading it would be part of the time.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let (status, cpu) = wait(child.id());
    let elapsed = start.elapsed();
    assert_eq!(status, 0, "{command:?} ended with wait status {status:#x}");
    (elapsed, cpu)
}

/// Waits for a child of this process, and tells its status and the time that it computed.
#[expect(unsafe_code, reason = "no safe interface tells what one child used")]
fn wait(pid: u32) -> (i32, Duration) {
    use nix::libc::{rusage, timeval, wait4};
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<rusage>::zeroed();
    // SAFETY: both pointers are to values of the right types that live long enough, and all zeros is a valid `rusage`.
    let usage = unsafe {
        while wait4(pid.cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) < 0 {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "wait for a child: {error}");
        }
        usage.assume_init()
    };
    let duration = |time: timeval| {
        let micros = u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap();
        Duration::from_micros(micros)
    };
    (status, duration(usage.ru_utime) + duration(usage.ru_stime))
}
