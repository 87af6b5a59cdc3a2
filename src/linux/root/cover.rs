//! A file of our own, mounted over one of a root that takes no writes.

use rustix::fs::{CWD, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::{Act, Root, RootFault, fault};
use crate::linux::path::terminated;

impl Root {
    /// Mounts `from`, a file outside of the root, over `path` in it; the mount goes where the root goes.
    // Out of line: it is rare.
    #[inline(never)]
    pub fn cover(&self, path: &str, from: &str) -> Result<(), RootFault> {
        let target = self
            .open_in(path, OFlags::PATH | OFlags::CLOEXEC)
            .map_err(fault(Act::Find))?;
        let from = terminated(from).map_err(fault(Act::Find))?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree =
            rustix::mount::open_tree(CWD, from.as_c_str(), clone).map_err(fault(Act::Cover))?;
        let both =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&tree, c"", &target, c"", both).map_err(fault(Act::Cover))
    }
}
