//! Overlays by `mount(2)`, with all layers in a page of options.

use std::collections::HashSet;
use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, mount, mount_change, open_tree};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::layers::{Layers, Opener, split};
use super::shape::{kernel_knows, overlay_options};
use super::{Attempt, DIFF, MountOptions, SOURCE, WORK, descriptors, namespace};
use crate::error::{IoContext as _, Result};
use crate::layout::random_name;
use crate::lock::Key;
use crate::recover::entries;
use crate::remove::remove;
use crate::store::Store;

/// What the names of directories with the links of one mount begin with.
pub(crate) const LINKS: &str = ".links-";

/// The directory of the link to the upper tree, which has the tree's name: the kernel shows the options of a mount as
/// they were given, and that is how [`crate::tables`] finds who has the tree mounted.
const UPPER: &str = "u";

/// Where an overlay of id-mapped layers is mounted before it goes to its target.
const MOUNTED: &str = "m";

impl Store {
    pub(super) fn mount_classic(
        &self,
        layers: &Layers<'_>,
        target: &Path,
        options: &MountOptions,
    ) -> Result<(), Attempt> {
        let opener = Opener::new(layers, options.id_map.as_ref())?;
        for directory in layers.lowers {
            // The kernel would not tell which one is not there.
            drop(opener.open(directory)?);
        }
        let links = self.layout().mounts().join(format!("{LINKS}{}", random_name()));
        fs::create_dir(&links).context("create", &links)?;
        let mounted = mount_by_links(&opener, &links, layers, target, options);
        // Nothing is mounted below as seen from here: id-mapped layers are in a namespace of their own.
        if let Err(error) = fs::remove_dir_all(&links) {
            tracing::warn!(%error, path = %links.display(), "temporary links stay");
        }
        mounted
    }

    /// Removes what killed commands left where the store mounts.
    pub fn tidy_mount_points(&self) -> Result<()> {
        let _claim = self.claim(&Key::Mounts)?;
        self.remove_links()
    }

    /// The same for who holds [`Key::Mounts`]: the links of killed mounts, and directories without a row.
    pub(crate) fn remove_links(&self) -> Result<()> {
        let kept: HashSet<PathBuf> = self.mounts()?.into_iter().map(|row| row.target).collect();
        for path in entries(&self.layout().mounts())? {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(LINKS.as_bytes())) {
                remove(&path, &self.layout().trash()).context("delete", &path)?;
            } else if !kept.contains(&path) && super::mount_at(&path).is_ok_and(|found| found.is_none()) {
                // The row of a mount goes before its directory does. One that others have mounted on is busy for them.
                fs::remove_dir(&path).unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn mount_by_links(
    opener: &Opener,
    links: &Path,
    layers: &Layers<'_>,
    target: &Path,
    options: &MountOptions,
) -> Result<(), Attempt> {
    let clones: Vec<(&PathBuf, &OwnedFd)> = opener.clones.iter().collect();
    for index in 0..clones.len() {
        let point = links.join(clone_name(index));
        fs::create_dir(&point).context("create", &point)?;
    }
    // As seen from the directory with the links.
    let find = |directory: &Path| {
        let (holder, rest) = split(directory);
        match clones.iter().position(|(cloned, _)| *cloned == holder) {
            Some(index) => Path::new(&clone_name(index)).join(rest),
            None => directory.to_owned(),
        }
    };
    let link = |to: &Path, name: &Path| symlink(to, links.join(name)).context("create links in", links);
    let mut data = String::from("lowerdir=");
    for (index, lower) in layers.lowers.iter().enumerate() {
        let name = index.to_string();
        link(&find(lower), name.as_ref())?;
        let colon = if index > 0 { ":" } else { "" };
        data.extend([colon, &name]);
    }
    if let Some(upper) = layers.upper {
        let name = upper.tree.file_name().and_then(|name| name.to_str());
        // Others than the store's own could have a comma in it.
        let name = name.filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric())).unwrap_or(UPPER);
        let tree = find(&upper.diff());
        fs::create_dir(links.join(UPPER)).context("create links in", links)?;
        let tree = Path::new("..").join(tree.parent().unwrap_or(&tree));
        link(&tree, &Path::new(UPPER).join(name))?;
        for (key, directory) in [("upperdir", DIFF), ("workdir", WORK)] {
            // Writing to a string cannot fail.
            let _ = write!(data, ",{key}={UPPER}/{name}/{directory}");
        }
    }
    for (key, value) in overlay_options(options, layers.upper.is_some(), kernel_knows) {
        data.extend([",", key]);
        data.extend(value.iter().flat_map(|value| ["=", value]));
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let flags = if layers.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    if clones.is_empty() {
        return in_directory(links, || Ok(mount(SOURCE, target, "overlay", flags, &*data)?));
    }
    let point = links.join(MOUNTED);
    fs::create_dir(&point).context("create", &point)?;
    let owner = layers.upper.map(|upper| opener.open(&upper.work())).transpose()?;
    let clones: Vec<&OwnedFd> = clones.into_iter().map(|(_, clone)| clone).collect();
    let mounted = in_directory(links, || mount_in_private(&clones, owner.as_ref(), flags, &data))?;
    descriptors::attach(&mounted, target)
}

fn clone_name(index: usize) -> String {
    format!("c{index}")
}

/// Does something on a thread with a working directory of its own: relative directories in the options of a
/// mount are looked up from there, and the working directory belongs to the process.
fn in_directory<T: Send>(
    directory: &Path,
    action: impl FnOnce() -> Result<T, Attempt> + Send,
) -> Result<T, Attempt> {
    let descriptor = File::open(directory).context("open", directory)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare_thread(UnshareFlags::FS)?;
            rustix::process::fchdir(descriptor.as_fd())?;
            action()
        });
        thread.join().unwrap_or_else(|_| namespace::panicked())
    })
}

/// Before Linux 6.15 the layers of an overlay have to be attached somewhere. That is done in a mount namespace
/// which ends with this thread, so that no other process ever sees, or deletes through, what is mounted here.
/// The working directory is that of the links.
fn mount_in_private(
    clones: &[&OwnedFd],
    owner: Option<&OwnedFd>,
    flags: MountFlags,
    data: &CString,
) -> Result<OwnedFd, Attempt> {
    unshare_thread(UnshareFlags::NEWNS)?;
    // Otherwise the mounts would appear in the namespace that this one is a copy of.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    for (index, clone) in clones.iter().enumerate() {
        descriptors::attach(clone, Path::new(&clone_name(index)))?;
    }
    namespace::as_owner_of(owner, || Ok(mount(SOURCE, MOUNTED, "overlay", flags, &**data)?))?;
    Ok(open_tree(CWD, MOUNTED, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

/// Takes a copy of the working directory, or of the mounts, for this thread alone.
fn unshare_thread(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the callers ask for the working directory, root and umask, or the mount namespace; the file
    // descriptor table stays shared.
    #[expect(unsafe_code, reason = "unshare is unsafe for the sake of CLONE_FILES, which is not asked for")]
    unsafe {
        unshare_unsafe(flags)
    }
}
