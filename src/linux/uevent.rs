//! The kernel's uevent socket.
