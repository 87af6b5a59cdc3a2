//! System calls that rustix lacks, made through libc's `syscall(2)`.
//!
//! Not a second rustix: only what this room needs and rustix 1.1 lacks or keeps to itself. musl is linked with the product for its start-up code, glibc with
//! the host's tests; both have `syscall` and `__errno_location`, so there is no assembly here.
//! Layouts and numbers are those of the kernel's uapi headers, by way of `linux_raw_sys`.

use core::ffi::{CStr, c_char, c_int, c_long};
use core::mem::{MaybeUninit, size_of};

use linux_raw_sys::general::{
    __NR_clock_gettime, __NR_clone, __NR_execve, __NR_exit_group, __NR_recvmsg, __NR_setsockopt,
    __NR_syslog, __kernel_timespec, SIGCHLD, iovec,
};
use linux_raw_sys::if_packet::sockaddr_ll;
use linux_raw_sys::net::{AF_PACKET, MSG_TRUNC, cmsghdr, msghdr};
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::{Errno, Result};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

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
    match unsafe { *errno } {
        number @ 1..=4095 => Errno::from_raw_os_error(number),
        // rustix panics on numbers that no error has.
        _ => Errno::IO,
    }
}

/// The number of a descriptor as an argument.
fn number_of(descriptor: &impl AsFd) -> usize {
    descriptor.as_fd().as_raw_fd().cast_unsigned() as usize
}

/// A type that the kernel may read byte by byte: no padding, no invariant that it could break.
///
/// # Safety
///
/// The type is `repr(C)`, and the memory it points to, if any, lives as long as the value.
pub(super) unsafe trait OptionValue {}

// SAFETY: a plain integer.
unsafe impl OptionValue for c_int {}

/// Sets a socket option that has no function in rustix.
pub(super) fn set_option<T: OptionValue>(
    socket: impl AsFd,
    level: u32,
    name: u32,
    value: &T,
) -> Result<()> {
    let value = core::ptr::from_ref(value) as usize;
    let arguments = [
        number_of(&socket),
        level as usize,
        name as usize,
        value,
        size_of::<T>(),
        0,
    ];
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a live `T` and what that points to.
    unsafe { call(__NR_setsockopt, arguments) }.map(drop)
}

/// One instruction of the kernel's classic packet filter (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) if_true: u8,
    pub(super) if_false: u8,
    pub(super) operand: u32,
}

/// A packet filter as `SO_ATTACH_FILTER` takes it (`struct sock_fprog`).
#[repr(C)]
pub(super) struct Program {
    length: u16,
    instructions: *const Instruction,
}

// SAFETY: `Program::new` takes a static slice, so the instructions outlive every value.
unsafe impl OptionValue for Program {}

impl Program {
    /// Describes a filter; one of more than 65535 instructions is cut, which the kernel refuses.
    pub(super) const fn new(instructions: &'static [Instruction]) -> Self {
        Self {
            length: instructions.len() as u16,
            instructions: instructions.as_ptr(),
        }
    }
}

/// The address of an interface as `AF_PACKET` takes it: this `protocol` on the link `index`.
pub(super) struct LinkAddress {
    pub(super) index: u32,
    pub(super) protocol: u16,
}

// SAFETY: `f` gets a whole `sockaddr_ll` that lives until it returns, and that struct's size.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let address = sockaddr_ll {
            sll_family: AF_PACKET as u16,
            sll_protocol: self.protocol.to_be(),
            sll_ifindex: self.index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        f(
            (&raw const address).cast(),
            size_of::<sockaddr_ll>() as SocketAddrLen,
        )
    }
}

/// Room for one control message with a payload of up to 32 bytes.
#[repr(C)]
struct Control {
    header: cmsghdr,
    payload: [u8; 32],
}

/// What [`receive_message`] got.
pub(super) struct Received<const N: usize> {
    /// The length of the datagram, which may be more than the buffer held.
    pub(super) length: usize,
    /// Whether the buffer was too small.
    pub(super) truncated: bool,
    /// The payload of the control message that was asked for, if it came first and whole.
    pub(super) control: Option<[u8; N]>,
}

/// Receives one datagram and the payload of its control message `level`/`kind`, at most 32 bytes.
pub(super) fn receive_message<const N: usize>(
    socket: impl AsFd,
    buffer: &mut [u8],
    (level, kind): (u32, u32),
) -> Result<Received<N>> {
    let mut data = iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len() as u64,
    };
    let mut control = Control {
        header: cmsghdr {
            cmsg_len: 0,
            cmsg_level: 0,
            cmsg_type: 0,
        },
        payload: [0; 32],
    };
    let mut message = msghdr {
        msg_name: core::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: (&raw mut data).cast(),
        msg_iovlen: 1,
        msg_control: (&raw mut control).cast(),
        msg_controllen: size_of::<Control>(),
        msg_flags: 0,
    };
    let arguments = [
        number_of(&socket),
        &raw mut message as usize,
        MSG_TRUNC as usize,
        0,
        0,
        0,
    ];
    // SAFETY: `message` describes a buffer and a control area that outlive the call; the kernel
    // writes at most their lengths.
    let length = unsafe { call(__NR_recvmsg, arguments) }?;
    let truncated = message.msg_flags & MSG_TRUNC != 0 || length > buffer.len();
    // `cmsg_len` counts the header; it stays 0 when the kernel had nothing to say.
    let ours = control.header.cmsg_level.cast_unsigned() == level
        && control.header.cmsg_type.cast_unsigned() == kind
        && control.header.cmsg_len >= size_of::<cmsghdr>() + N;
    let control = if ours {
        control.payload.first_chunk().copied()
    } else {
        None
    };
    Ok(Received {
        length,
        truncated,
        control,
    })
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

/// Reads the end of the kernel's log into a buffer and tells how much of it that fills.
pub(super) fn read_kernel_log(buffer: &mut [u8]) -> Result<usize> {
    // SYSLOG_ACTION_READ_ALL, which takes nothing out.
    const READ_ALL: usize = 3;
    let size = buffer.len().min(1 << 20);
    let arguments = [READ_ALL, buffer.as_mut_ptr() as usize, size, 0, 0, 0];
    // SAFETY: the kernel writes at most `size` bytes to a buffer that is at least as long.
    unsafe { call(__NR_syslog, arguments) }
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
