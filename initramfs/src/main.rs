//! Packs preroot and the kernel modules it needs into an initramfs.
fn main() {}
