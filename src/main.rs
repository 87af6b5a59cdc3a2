//! Start-up and nothing else: the C entry point, the allocator, the panic handler, the exit code.

#![no_std]
#![no_main]

// Where the target is not the product's, another crate of the build may bring `std` in; then its
// panic handler has to serve.
#[cfg(not(target_env = "musl"))]
extern crate std;

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_char, c_int};

use preroot::command;
use preroot::linux::process;
use talc::DefaultBinning;
use talc::cell::{TalcCell, TalcSyncCell};
use talc::source::Claim;

/// Room for what needs `alloc`: XML trees and the texts of the account files.
///
/// It lies in .bss: a page that is never touched costs nothing.
const ARENA_BYTES: usize = 4 << 20;
static mut ARENA: [u8; ARENA_BYTES] = [0; ARENA_BYTES];

const PLACE: *mut [u8; ARENA_BYTES] = &raw mut ARENA;
// SAFETY: nothing else names `ARENA` or `PLACE`.
const CLAIM: Claim = unsafe { Claim::array(PLACE) };

// SAFETY: this program never has a second thread, and no signal handlers.
#[global_allocator]
static ALLOCATOR: Wiping = Wiping(unsafe { TalcSyncCell::new(TalcCell::new(CLAIM)) });

/// Wipes what is given back: passwords are in texts that libraries make and drop as they like.
///
/// A block that grows or shrinks is always a new one, so that the old one is wiped too.
struct Wiping(TalcSyncCell<Claim, DefaultBinning>);

// SAFETY: every block is the inner allocator's; it is written to only while it is still the caller's.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has this size, and nobody reads it any more.
        unsafe { block.write_bytes(0, layout.size()) };
        // Nobody reads it: the compiler must not conclude that nobody needs the zeros.
        core::hint::black_box(block);
        // SAFETY: the caller's promises are the same.
        unsafe { self.0.dealloc(block, layout) };
    }
}

/// Where the C start-up code hands over.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    // SAFETY: the C start-up passes the kernel's own argument vector, which lives as long as we do.
    let arguments = unsafe { process::Arguments::new(count, arguments) };
    command::run(arguments)
}

/// Ends the process. Whoever forked the worker sees it die, says so, and the boot goes on.
#[cfg(target_env = "musl")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    process::abort()
}

/// The prebuilt `core` and `alloc` name these two in their landing pads; nothing ever unwinds.
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    process::abort()
}

/// See [`_Unwind_Resume`].
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    process::abort()
}
