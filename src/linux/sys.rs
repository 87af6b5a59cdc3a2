//! System calls that rustix lacks, made through libc's `syscall(2)`.
//!
//! Not a second rustix: only what this room needs and rustix 1.1 lacks or keeps to itself. musl is linked with the product for its start-up code, glibc with
//! the host's tests; both have `syscall` and `__errno_location`, so there is no assembly here.
//! Layouts and numbers are those of the kernel's uapi headers, by way of `linux_raw_sys`.

use core::ffi::{CStr, c_char, c_int, c_long};
use core::mem::MaybeUninit;

use linux_raw_sys::general::{
    __NR_clock_gettime, __NR_clone, __NR_execve, __NR_exit_group, __kernel_timespec, SIGCHLD,
};
use rustix::io::{Errno, Result};

#[link(name = "c")]
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    safe fn __errno_location() -> *mut c_int;
}

/// Makes one system call. Every argument is passed: `syscall` reads six whatever the number.
///
/// # Safety
///
/// The arguments are what the system call `number` asks for, and what they point to lives and may
/// be written as that call needs.
unsafe fn call(number: u32, arguments: [usize; 6]) -> Result<usize> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: the caller vouches for the arguments; the six are register-sized, as the ABI wants.
    let result = unsafe { syscall(number as c_long, first, second, third, fourth, fifth, sixth) };
    usize::try_from(result).map_err(|_| last_error())
}

/// Reads this thread's errno.
fn last_error() -> Errno {
    let errno = __errno_location();
    // SAFETY: libc gives the address of this thread's errno, which is always readable.
    Errno::from_raw_os_error(unsafe { *errno })
}

/// Reads a clock by the system call itself.
///
/// rustix looks the vDSO up by its own ELF reader, which crashes under valgrind and costs a
/// system call at the start; we read the clock some ten times in a boot.
pub(super) fn clock(id: u32) -> Result<__kernel_timespec> {
    let mut time = MaybeUninit::<__kernel_timespec>::uninit();
    let arguments = [id as usize, time.as_mut_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: the kernel writes one `timespec` to a place of that size.
    unsafe { call(__NR_clock_gettime, arguments) }?;
    // SAFETY: the call succeeded, so the kernel has filled it in.
    Ok(unsafe { time.assume_init() })
}

/// Splits the process in two; the parent gets the child's id, the child gets 0.
///
/// # Safety
///
/// libc does not learn of it: no `atfork` handler runs and what it caches of the process is stale
/// in the child. The child may use no libc state that another thread could have held.
pub(super) unsafe fn fork() -> Result<i32> {
    // SAFETY: without CLONE_VM the child has its own copy of everything, the stack included, so
    // both return from here; the other arguments (whose order differs by machine) are 0.
    let id = unsafe { call(__NR_clone, [SIGCHLD as usize, 0, 0, 0, 0, 0]) }?;
    // Process ids end at 2^22.
    i32::try_from(id).map_err(|_| Errno::OVERFLOW)
}

/// Replaces the program; returns only when that failed.
///
/// # Safety
///
/// `arguments` and `environment` point to null-terminated arrays of C strings.
pub(super) unsafe fn exec(
    path: &CStr,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> Errno {
    let arguments = [
        path.as_ptr() as usize,
        arguments as usize,
        environment as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel reads a C string and two arrays for which the caller vouches.
    match unsafe { call(__NR_execve, arguments) } {
        Err(errno) => errno,
        // The kernel does not return from an execve that succeeded.
        Ok(_) => Errno::NOSYS,
    }
}

/// Ends the process, all its threads, at once.
pub(super) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: exit_group takes an integer and does not return.
        let _ = unsafe {
            call(
                __NR_exit_group,
                [code.cast_unsigned() as usize, 0, 0, 0, 0, 0],
            )
        };
    }
}
