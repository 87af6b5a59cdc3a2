//! Writes and reads newc cpio archives, the form the kernel unpacks as an initramfs.
//!
//! Not a general archiver: no hard links, no owners but root, no times. Two archives of the same
//! entries are equal byte for byte. Follows the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use core::fmt;

const MAGIC: &[u8; 6] = b"070701";
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// GNU cpio pads to this; the kernel does not care, tapes did.
const BLOCK: usize = 512;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;
const TYPE_MASK: u32 = 0o170_000;

/// Is what an entry of the archive holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file and its content.
    File(Vec<u8>),
    /// A character device.
    Character {
        /// The driver's number.
        major: u32,
        /// The device's number at its driver.
        minor: u32,
    },
}

/// Is one name in the archive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The path without a leading slash.
    pub name: String,
    /// The permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
}

/// Says why an archive cannot be written or read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// A file is 4 GiB or larger, which newc has no room for.
    TooLarge,
    /// The bytes are not a newc archive, or it is cut short.
    Malformed,
    /// An entry is of a kind that this program never writes.
    Foreign,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "a file of 4 GiB or more does not fit into a cpio archive",
            Self::Malformed => "not a newc cpio archive, or cut short",
            Self::Foreign => "the archive has an entry that is no file, directory or device",
        })
    }
}

/// Makes an archive of the entries in the order given.
///
/// The kernel unpacks front to back: the caller puts a directory ahead of what is inside it.
pub fn write(entries: &[Entry]) -> Result<Vec<u8>, Fault> {
    let mut archive = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let (kind, links, device, data): (u32, u32, (u32, u32), &[u8]) = match &entry.kind {
            Kind::Directory => (DIRECTORY, 2, (0, 0), &[]),
            Kind::File(data) => (REGULAR, 1, (0, 0), data),
            Kind::Character { major, minor } => (CHARACTER, 1, (*major, *minor), &[]),
        };
        let size = u32::try_from(data.len()).map_err(|_| Fault::TooLarge)?;
        let inode = u32::try_from(index + 1).map_err(|_| Fault::TooLarge)?;
        header(
            &mut archive,
            &entry.name,
            inode,
            kind | entry.mode,
            links,
            size,
            device,
        );
        archive.extend_from_slice(data);
        pad(&mut archive, 4);
    }
    header(&mut archive, TRAILER, 0, 0, 1, 0, (0, 0));
    pad(&mut archive, BLOCK);
    Ok(archive)
}

fn header(
    archive: &mut Vec<u8>,
    name: &str,
    inode: u32,
    mode: u32,
    links: u32,
    size: u32,
    (major, minor): (u32, u32),
) {
    archive.extend_from_slice(MAGIC);
    // Inode, mode, owner, group, links, time, size, device of the file system, device of the node,
    // length of the name with its NUL, checksum.
    let length = name.len() as u32 + 1;
    for field in [
        inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, length, 0,
    ] {
        archive.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive, 4);
}

fn pad(archive: &mut Vec<u8>, to: usize) {
    archive.resize(archive.len().next_multiple_of(to), 0);
}

/// Reads an archive that [`write()`] could have made, for those who check an image.
pub fn read(archive: &[u8]) -> Result<Vec<Entry>, Fault> {
    let mut entries = Vec::new();
    let mut position = 0_usize;
    loop {
        let header = slice(archive, position, HEADER)?;
        if !header.starts_with(MAGIC) {
            return Err(Fault::Malformed);
        }
        let field = |index: usize| -> Result<u32, Fault> {
            let digits = slice(header, MAGIC.len() + index * 8, 8)?;
            let digits = core::str::from_utf8(digits).map_err(|_| Fault::Malformed)?;
            u32::from_str_radix(digits, 16).map_err(|_| Fault::Malformed)
        };
        let (mode, size, length) = (field(1)?, field(6)? as usize, field(11)? as usize);
        let name = slice(archive, position + HEADER, length)?;
        let name = name.strip_suffix(&[0]).ok_or(Fault::Malformed)?;
        let name = core::str::from_utf8(name).map_err(|_| Fault::Malformed)?;
        if name == TRAILER {
            return Ok(entries);
        }
        let start = (position + HEADER + length).next_multiple_of(4);
        let data = slice(archive, start, size)?;
        position = (start + size).next_multiple_of(4);
        let kind = match mode & TYPE_MASK {
            DIRECTORY => Kind::Directory,
            REGULAR => Kind::File(data.to_vec()),
            CHARACTER => Kind::Character {
                major: field(9)?,
                minor: field(10)?,
            },
            _ => return Err(Fault::Foreign),
        };
        entries.push(Entry {
            name: name.to_owned(),
            mode: mode & !TYPE_MASK,
            kind,
        });
    }
}

fn slice(bytes: &[u8], start: usize, length: usize) -> Result<&[u8], Fault> {
    let end = start.checked_add(length).ok_or(Fault::Malformed)?;
    bytes.get(start..end).ok_or(Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Entry> {
        vec![
            Entry {
                name: "dev".into(),
                mode: 0o755,
                kind: Kind::Directory,
            },
            Entry {
                name: "dev/console".into(),
                mode: 0o600,
                kind: Kind::Character { major: 5, minor: 1 },
            },
            Entry {
                name: "init".into(),
                mode: 0o755,
                kind: Kind::File(b"#!/bin/sh\n".to_vec()),
            },
            Entry {
                name: "empty".into(),
                mode: 0o644,
                kind: Kind::File(Vec::new()),
            },
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(read(&write(&sample()).unwrap()).unwrap(), sample());
    }

    #[test]
    fn header_has_the_bytes_of_the_kernels_document() {
        let archive = write(&sample()[2..3]).unwrap();
        // What `cpio -o -H newc -R 0:0` writes, but for its inode, time and device.
        let expected = b"07070100000001000081ED0000000000000000000000010000000000000\
            00A000000000000000000000000000000000000000500000000init\0\0#!/bin/sh\n\0\0";
        assert_eq!(&archive[..expected.len()], expected);
        assert_eq!(archive.len() % BLOCK, 0);
    }

    #[test]
    fn any_damage_is_an_error_and_never_a_panic() {
        let good = write(&sample()).unwrap();
        let mut state = 0x9e37_79b9_u32;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize % below
        };
        for _ in 0..5000 {
            let mut bad = good.clone();
            for _ in 0..=random(3) {
                let at = random(bad.len());
                bad[at] ^= 1 << random(8);
            }
            bad.truncate(random(good.len()) + 1);
            let _ = read(&bad);
        }
        // Without its end an archive is never taken for whole.
        let end = good
            .windows(TRAILER.len())
            .position(|w| w == TRAILER.as_bytes())
            .unwrap();
        for length in 0..end {
            assert_eq!(read(&good[..length]), Err(Fault::Malformed));
        }
    }
}
