//! A sandbox for threads that unpack: Landlock (kernel documentation, "Landlock: unprivileged access control").
//!
//! Everything that an archive says is done below one directory anyway. The sandbox is for the day on which that turns
//! out to be wrong: a confined thread, with the threads it starts, can open, create, link, rename and remove files
//! below the directories it was given and nowhere else, can run no program, and can make no TCP connection. What it
//! holds open already stays usable.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};

/// The first version that allows links between directories at all (Linux 5.19).
const NEEDED: ABI = ABI::V2;
/// The last version whose rights are asked for, as far as the kernel has them.
const NEWEST: ABI = ABI::V5;

/// What the calling thread can do from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// Only what it was given.
    Landlock,
    /// What it could before: the kernel has no Landlock, an older one than Linux 5.19, or has it switched off.
    Unavailable,
}

/// Confines the calling thread, for good, to what is below `directories`, which must exist.
///
/// # Errors
///
/// A directory that cannot be opened, or a kernel that has Landlock and refuses it. The thread is then as free as
/// before.
pub fn confine(directories: &[&Path]) -> io::Result<Confinement> {
    if !is_available() {
        return Ok(Confinement::Unavailable);
    }
    restrict(directories)
}

/// Whether the running kernel can confine a thread. It is asked for its version, nothing is made.
pub fn is_available() -> bool {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::from_all(NEEDED)).is_ok()
}

fn restrict(directories: &[&Path]) -> io::Result<Confinement> {
    let rights: BitFlags<AccessFs> = AccessFs::from_all(NEWEST);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(rights)
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    for directory in directories {
        let directory = PathFd::new(directory).map_err(io::Error::other)?;
        let rule = PathBeneath::new(directory, rights & !BitFlags::from(AccessFs::Execute));
        ruleset = ruleset.add_rule(rule).map_err(io::Error::other)?;
    }
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Confinement::Unavailable,
        _ => Confinement::Landlock,
    })
}
