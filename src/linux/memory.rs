//! The large buffers: in .bss, where a page that is never touched costs nothing.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::engine::transport;

/// The largest HTTP response of the WireServer's that is read.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// The largest document of the metadata service's: user data of 64 KiB is 87 KiB there.
pub const MAX_METADATA: usize = 128 * 1024;

/// The buffers of a conversation over the network.
pub struct Buffers {
    /// Frames and the TCP connection.
    pub transport: transport::Buffers,
    /// One HTTP response of the WireServer's.
    pub response: [u8; MAX_RESPONSE],
    /// One of the metadata service's.
    pub metadata: [u8; MAX_METADATA],
}

static TAKEN: AtomicBool = AtomicBool::new(false);
static mut BUFFERS: Buffers = Buffers {
    transport: transport::Buffers::new(),
    response: [0; MAX_RESPONSE],
    metadata: [0; MAX_METADATA],
};

/// Hands out the buffers; `None` the second time.
pub fn take_buffers() -> Option<(&'static mut Buffers, &'static mut transport::Storage)> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    let buffers = &raw mut BUFFERS;
    // SAFETY: only this function names the static, and the swap lets it run once.
    let buffers = unsafe { buffers.as_mut() }?;
    // Apart from the buffers: an empty place is not all zeros, and would take them out of .bss.
    let sockets = Box::<transport::Storage>::default();
    Some((buffers, Box::leak(sockets)))
}
