//! Kernel modules, without kmod.
