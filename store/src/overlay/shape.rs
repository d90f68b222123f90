//! Which kind of mount shows a stack.
//!
//! | lower trees | upper tree | mount |
//! | --- | --- | --- |
//! | none | yes | bind of `diff`: overlayfs wants a lower directory |
//! | one, plain | no | bind, read-only |
//! | none or one | no | overlay, filled up with empty directories: without an upper one overlayfs wants two lower ones |
//! | several | no | overlay without upper |
//! | any | yes | overlay |

use std::path::PathBuf;

use super::{MAX_LAYERS, MountOptions, Stack, Upper};
use crate::error::{Error, Result};
use crate::layout::Layout;

/// A stack as the kernel can mount it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    /// One directory as it is.
    Bind { tree: PathBuf, read_only: bool },
    /// At least two directories, or one and an upper one.
    Overlay { lowers: Vec<PathBuf>, upper: Option<&'a Upper>, read_only: bool },
}

impl<'a> Shape<'a> {
    pub(super) fn of(stack: &'a Stack, layout: &Layout, options: &MountOptions) -> Result<Self> {
        let count = stack.lowers.len();
        if count > MAX_LAYERS {
            return Err(Error::TooManyLayers { count, max: MAX_LAYERS });
        }
        Ok(match (stack.lowers.as_slice(), &stack.upper) {
            ([], Some(upper)) => Self::Bind { tree: upper.diff(), read_only: options.read_only },
            ([tree], None) if stack.plain => Self::Bind { tree: tree.clone(), read_only: true },
            (lowers, Some(upper)) => {
                Self::Overlay { lowers: lowers.to_vec(), upper: Some(upper), read_only: options.read_only }
            }
            (lowers, None) => {
                let missing = 2_usize.saturating_sub(count);
                let filling = layout.empty().into_iter().take(missing);
                let lowers = lowers.iter().cloned().chain(filling).collect();
                Self::Overlay { lowers, upper: None, read_only: true }
            }
        })
    }
}

/// Options of overlayfs that do not name directories.
///
/// An upper tree is to hold nothing but files and whiteouts, so that it can be exported, and what an image
/// brings is not to redirect anything: hence `nofollow` rather than `off`, which follows where the kernel is
/// set to `redirect_always_follow`, and which therefore excludes `userxattr`.
pub(super) fn overlay_options(
    options: &MountOptions,
    has_upper: bool,
    knows: impl Fn(&str) -> bool,
) -> Vec<(&'static str, Option<&'static str>)> {
    let values = [("index", "off"), ("redirect_dir", "nofollow"), ("metacopy", "off")];
    let mut result: Vec<_> =
        values.into_iter().filter(|(key, _)| knows(key)).map(|(key, value)| (key, Some(value))).collect();
    if options.user_xattrs {
        result.push(("userxattr", None));
    }
    if options.volatile && has_upper {
        result.push(("volatile", None));
    }
    result
}

/// Whether the kernel's overlayfs has a feature that can be switched off.
pub(super) fn kernel_knows(parameter: &str) -> bool {
    const MODULE: &str = "/sys/module/overlay";
    let module = std::path::Path::new(MODULE);
    if !module.exists() {
        // Asking for the filesystem loads its module. Who must not ask gets no mount either.
        drop(rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC));
    }
    module.join("parameters").join(parameter).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(lowers: &[&str], upper: bool, plain: bool) -> (Stack, Layout) {
        let upper = upper.then(|| Upper { tree: "/u".into() });
        let stack = Stack { lowers: lowers.iter().map(PathBuf::from).collect(), upper, plain };
        (stack, Layout::new("/root".into()))
    }

    fn check(lowers: &[&str], upper: bool, plain: bool, expected: &str) {
        let (stack, layout) = shape(lowers, upper, plain);
        let text = match Shape::of(&stack, &layout, &MountOptions::default()).unwrap() {
            Shape::Bind { tree, read_only } => format!("bind {} {read_only}", tree.display()),
            Shape::Overlay { lowers, upper, read_only } => {
                let lowers: Vec<_> = lowers.iter().map(|path| path.display().to_string()).collect();
                format!("overlay {} {} {read_only}", lowers.join(":"), upper.is_some())
            }
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn each_stack_has_its_kind_of_mount() {
        check(&[], true, false, "bind /u/diff false");
        check(&["/a"], false, true, "bind /a true");
        check(&["/a"], false, false, "overlay /a:/root/empty/0 false true");
        check(&[], false, true, "overlay /root/empty/0:/root/empty/1 false true");
        check(&["/a", "/b"], false, true, "overlay /a:/b false true");
        check(&["/a"], true, true, "overlay /a true false");
    }

    #[test]
    fn more_than_the_kernel_stacks_is_refused() {
        let (mut stack, layout) = shape(&[], true, false);
        stack.lowers = vec!["/a".into(); MAX_LAYERS + 1];
        let error = Shape::of(&stack, &layout, &MountOptions::default()).unwrap_err();
        assert!(matches!(error, Error::TooManyLayers { .. }), "{error}");
    }

    #[test]
    fn only_what_the_kernel_knows_is_switched_off() {
        let all = MountOptions { user_xattrs: true, volatile: true, ..MountOptions::default() };
        let names = |options: &MountOptions, upper, knows: bool| {
            let list = overlay_options(options, upper, |_| knows);
            list.into_iter().map(|(key, _)| key).collect::<Vec<_>>().join(",")
        };
        assert_eq!(names(&all, true, true), "index,redirect_dir,metacopy,userxattr,volatile");
        assert_eq!(names(&all, false, false), "userxattr");
    }
}
