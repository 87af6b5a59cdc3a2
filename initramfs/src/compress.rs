//! Takes kernel modules out of their compression and puts the archive into its own.
//!
//! Modules are stored plain: the archive is compressed as a whole, better than the modules one by
//! one, and the boot then needs no decompressor, in preroot or in the kernel. Knows what kmod
//! knows: `.gz`, `.xz` (every check type) and `.zst`.

use core::fmt;
use core::str::FromStr;
use std::io::{self, Read, Write};

/// No kernel module is near this; a file that is larger when unpacked is damaged or a trap.
const LARGEST_MODULE: u64 = 256 << 20;
/// The endings of compressed files that [`strip`] and [`expand`] know.
const ENDINGS: [(&str, Packing); 3] = [
    (".gz", Packing::Gzip),
    (".xz", Packing::Xz),
    (".zst", Packing::Zstd),
];

#[derive(Clone, Copy)]
enum Packing {
    Gzip,
    Xz,
    Zstd,
}

/// Cuts the ending of a compressed file from its name.
pub fn strip(name: &str) -> &str {
    ENDINGS
        .iter()
        .find_map(|(ending, _)| name.strip_suffix(ending))
        .unwrap_or(name)
}

/// Unpacks a file by the ending of its name; other files are returned as they are.
///
/// Damage is an error: checksums are compared, and more than 256 MiB is refused.
pub fn expand(name: &str, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let Some((_, packing)) = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)) else {
        return Ok(bytes);
    };
    let mut plain = Vec::new();
    let input = bytes.as_slice();
    let limit = LARGEST_MODULE + 1;
    match packing {
        Packing::Gzip => {
            flate2::read::MultiGzDecoder::new(input)
                .take(limit)
                .read_to_end(&mut plain)?;
        }
        Packing::Xz => {
            lzma_rust2::XzReader::new(input, true)
                .take(limit)
                .read_to_end(&mut plain)?;
        }
        Packing::Zstd => {
            zstd::stream::read::Decoder::with_buffer(input)?
                .take(limit)
                .read_to_end(&mut plain)?;
        }
    }
    if plain.len() as u64 > LARGEST_MODULE {
        return Err(io::Error::other("more than 256 MiB when unpacked"));
    }
    Ok(plain)
}

/// Is how the finished archive is compressed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Compression {
    /// Every kernel configuration can unpack it.
    #[default]
    Gzip,
    /// Smaller, and faster to unpack; needs `CONFIG_RD_ZSTD`, Linux 5.9 or later.
    Zstd,
    /// As it is.
    None,
}

impl Compression {
    /// Compresses the archive at the highest level that costs no memory at boot.
    ///
    /// The result depends on the input alone.
    pub fn apply(self, archive: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(archive.to_vec()),
            Self::Gzip => {
                let level = flate2::Compression::best();
                let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), level);
                encoder.write_all(archive)?;
                encoder.finish()
            }
            Self::Zstd => {
                // Levels above 19 want a window of 32 MiB and more from the kernel that unpacks.
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 19)?;
                encoder.include_checksum(true)?;
                encoder.set_pledged_src_size(Some(archive.len() as u64))?;
                encoder.write_all(archive)?;
                encoder.finish()
            }
        }
    }
}

impl FromStr for Compression {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "none" => Ok(Self::None),
            _ => Err("expected gzip, zstd or none"),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::None => "none",
        })
    }
}
