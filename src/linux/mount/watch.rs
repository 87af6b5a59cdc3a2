//! Waiting until something is mounted on a directory.
//!
//! Follows proc(5): `/proc/self/mountinfo` wakes a poll for `POLLPRI` when any mount has changed.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{self, Errno};

/// The kernel's list of mounts. Poll it for `PRI`: each change wakes once.
pub struct Mounts {
    list: OwnedFd,
}

impl Mounts {
    /// Opens the list; needs `/proc`.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(c"/proc/self/mountinfo", flags, Mode::empty()).map(|list| Self { list })
    }

    /// Tells whether something is mounted on this very path, which is absolute and without links.
    pub fn is_mount_point(&self, path: &str) -> io::Result<bool> {
        let path = match path.trim_end_matches('/') {
            "" => "/",
            shorter => shorter,
        };
        let mut search = PointSearch::new(path.as_bytes());
        let mut buffer = [0; 1024];
        let mut offset = 0;
        loop {
            match rustix::io::pread(&self.list, &mut buffer, offset) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    offset = offset.saturating_add(n as u64);
                    if buffer[..n].iter().any(|&byte| search.push(byte)) {
                        return Ok(true);
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Mounts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.list.as_fd()
    }
}

/// Looks for a path in the fifth field of each line, byte by byte: lines have no greatest length.
struct PointSearch<'p> {
    path: &'p [u8],
    field: u8,
    /// What of the path has not been seen in this line; `None` once it cannot fit any more.
    left: Option<&'p [u8]>,
    /// Digits and value of an octal escape that has begun: the kernel writes a space as `\040`.
    escape: Option<(u8, u8)>,
}

const POINT_FIELD: u8 = 4;

impl<'p> PointSearch<'p> {
    fn new(path: &'p [u8]) -> Self {
        Self {
            path,
            field: 0,
            left: Some(path),
            escape: None,
        }
    }

    /// Takes the next byte; says when it ends the path that is looked for.
    fn push(&mut self, byte: u8) -> bool {
        match byte {
            b'\n' => {
                *self = Self::new(self.path);
                false
            }
            b' ' => {
                let found = self.field == POINT_FIELD
                    && self.escape.is_none()
                    && self.left.is_some_and(<[u8]>::is_empty);
                self.field = self.field.saturating_add(1);
                found
            }
            _ if self.field == POINT_FIELD => {
                self.compare(byte);
                false
            }
            _ => false,
        }
    }

    fn compare(&mut self, byte: u8) {
        let letter = match (self.escape, byte) {
            (None, b'\\') => {
                self.escape = Some((0, 0));
                return;
            }
            (None, _) => byte,
            (Some((digits, value)), b'0'..=b'7') => {
                let value = (value << 3) | (byte - b'0');
                if digits < 2 {
                    self.escape = Some((digits + 1, value));
                    return;
                }
                self.escape = None;
                value
            }
            // The kernel writes no other escapes.
            (Some(_), _) => {
                self.left = None;
                return;
            }
        };
        self.left = match self.left {
            Some([first, rest @ ..]) if *first == letter => Some(rest),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;

    const LIST: &str = "\
        23 1 0:2 / / rw - rootfs rootfs rw\n\
        24 23 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n\
        31 23 254:1 / /sysroot ro,relatime - ext4 /dev/vda1 ro\n\
        32 31 254:2 / /sysroot/a\\040b\\134c ro - ext4 /dev/vda2 ro\n\
        33 23 0:30 /sysroot2 /mnt rw - tmpfs /sysroot3 rw\n";

    fn finds(path: &str) -> bool {
        let mut search = PointSearch::new(path.as_bytes());
        LIST.bytes().any(|byte| search.push(byte))
    }

    #[test]
    fn only_the_mount_point_itself_is_found() {
        for path in ["/", "/proc", "/sysroot", "/mnt"] {
            assert!(finds(path), "{path}");
        }
        for path in [
            "/sysroot2",
            "/sysroot3",
            "/sys",
            "/sysroot/",
            "/sysroot/a",
            "/dev/vda1",
            "",
            "rw",
        ] {
            assert!(!finds(path), "{path}");
        }
    }

    #[test]
    fn escaped_letters_are_the_letters() {
        assert!(finds("/sysroot/a b\\c"));
        assert!(!finds("/sysroot/a\\040b\\134c"));
    }

    #[test]
    fn no_mutation_makes_it_panic() {
        let mut random = Random::new();
        let mut found = 0;
        for _ in 0..3000 {
            let mut list = LIST.as_bytes().to_vec();
            for _ in 0..random.below(20) {
                let at = random.below(list.len());
                list[at] = b" \\\n01789/x\xff"[random.below(11)];
            }
            let mut search = PointSearch::new(b"/sysroot/a b\\c");
            found += usize::from(list.iter().any(|&byte| search.push(byte)));
        }
        assert!((300..2900).contains(&found), "{found}");
    }

    #[test]
    fn the_live_list_knows_the_root_and_proc() {
        let mounts = Mounts::open().unwrap();
        assert!(mounts.is_mount_point("/").unwrap());
        assert!(mounts.is_mount_point("/proc/").unwrap());
        assert!(!mounts.is_mount_point("/nowhere").unwrap());
    }
}
