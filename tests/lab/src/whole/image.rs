//! A disk image in whatever format, looked at and never written to.
//!
//! `qemu-img` knows all formats but one: a fixed VHD begins like a raw image, so its footer is looked
//! for here. Follows Microsoft's Virtual Hard Disk Image Format Specification for that.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::fetch::Lab;
use crate::progress;

/// What a fixed VHD ends with: so many bytes, beginning with these.
const FOOTER: usize = 512;
const COOKIE: &[u8] = b"conectix";

/// The kind of a VHD that is not sparse.
const FIXED: u32 = 2;

/// What Azure wants the size of a disk to be a multiple of.
const ALIGNMENT: u64 = 1 << 20;

/// What is known of an image before it boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// The file.
    pub(super) path: PathBuf,
    /// How people call its format.
    pub(super) format: String,
    /// How large the disk is that it holds.
    pub(super) size: u64,
    /// How the emulator opens it.
    node: Value,
    /// What Azure would not take about it.
    pub(super) notes: Vec<String>,
}

impl Image {
    /// Looks at an image.
    pub(super) fn open(lab: &Lab, path: &Path) -> Result<Self, Fault> {
        let file = File::open(path).map_err(Fault::file("read", path))?;
        let length = file.metadata().map_err(Fault::file("read", path))?.len();
        if length == 0 {
            return Err(Fault::Content {
                path: path.to_owned(),
                why: "it is empty".to_owned(),
            });
        }
        let mut footer = [0; FOOTER];
        let has_footer = length
            .checked_sub(FOOTER as u64)
            .is_some_and(|at| file.read_exact_at(&mut footer, at).is_ok());
        if has_footer && is_fixed(&footer) {
            return Ok(Self::fixed(path, length - FOOTER as u64));
        }
        let mut info = lab.tool("qemu-img")?.command();
        let said = progress::run(info.args(["info", "--output=json", "--"]).arg(path))?;
        Self::described(path, &said).ok_or_else(|| Fault::Content {
            path: path.to_owned(),
            why: "qemu-img says nothing of its format".to_owned(),
        })
    }

    /// Takes a fixed VHD, whose content is a raw image before the footer.
    fn fixed(path: &Path, size: u64) -> Self {
        let file = json!({ "driver": "file", "filename": path });
        Self {
            path: path.to_owned(),
            format: "fixed VHD".to_owned(),
            size,
            node: json!({ "driver": "raw", "size": size, "file": file }),
            notes: misaligned(size).into_iter().collect(),
        }
    }

    /// Takes what `qemu-img info` says.
    fn described(path: &Path, said: &str) -> Option<Self> {
        let said: Value = serde_json::from_str(said).ok()?;
        let (driver, size) = (said["format"].as_str()?, said["virtual-size"].as_u64()?);
        let mut notes = Vec::new();
        let format = match driver {
            "vpc" => {
                notes.push(
                    "a VHD that grows: Azure takes fixed ones, `qemu-img convert -O vpc -o \
                     subformat=fixed,force_size` makes one"
                        .to_owned(),
                );
                notes.extend(misaligned(size));
                "VHD"
            }
            "vhdx" => "VHDX",
            other => other,
        };
        Some(Self {
            path: path.to_owned(),
            format: format.to_owned(),
            size,
            node: json!({ "driver": driver, "file": { "driver": "file", "filename": path } }),
            notes,
        })
    }

    /// Makes an image that takes the writes in its place; it is in the format qcow2.
    pub(super) fn overlay(&self, lab: &Lab, to: &Path) -> Result<(), Fault> {
        let driver = self.node["driver"].as_str().unwrap_or("raw");
        let mut create = lab.tool("qemu-img")?.command();
        create.args(["create", "-q", "-f", "qcow2", "-F", driver, "-b"]);
        create.arg(format!("json:{}", self.node)).arg(to);
        progress::run(&mut create).map(drop)
    }
}

/// Reads a piece of a qcow2 image.
pub(super) fn read(
    lab: &Lab,
    image: &Path,
    (start, length): (u64, u64),
    scratch: &Path,
) -> Result<Vec<u8>, Fault> {
    copy(lab, image, (start, length), scratch)?;
    std::fs::read(scratch).map_err(Fault::file("read", scratch))
}

/// Copies a piece of a qcow2 image, from where and how much, to a sparse file.
pub(super) fn copy(
    lab: &Lab,
    image: &Path,
    (start, length): (u64, u64),
    to: &Path,
) -> Result<(), Fault> {
    let disk = json!({ "driver": "qcow2", "file": { "driver": "file", "filename": image } });
    let piece = json!({ "driver": "raw", "offset": start, "size": length, "file": disk });
    let mut convert = lab.tool("qemu-img")?.command();
    convert.args(["convert", "-q", "-O", "raw"]);
    convert.arg(format!("json:{piece}")).arg(to);
    progress::run(&mut convert).map(drop)
}

/// Says whether these bytes are the footer of a VHD that is not sparse.
fn is_fixed(footer: &[u8; FOOTER]) -> bool {
    footer.starts_with(COOKIE) && footer[60..64] == FIXED.to_be_bytes()
}

/// Says so if Azure would refuse a VHD for its size.
fn misaligned(size: u64) -> Option<String> {
    (!size.is_multiple_of(ALIGNMENT)).then(|| {
        format!(
            "the disk has {size} bytes: Azure takes a VHD only if that is a multiple of 1 MiB, \
             here {}",
            size.next_multiple_of(ALIGNMENT)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `qemu-img` 7.2 says, cut down.
    fn said(format: &str, size: u64) -> String {
        json!({ "virtual-size": size, "filename": "/d", "format": format, "dirty-flag": false })
            .to_string()
    }

    #[test]
    fn format_is_told_by_the_name_that_people_have_for_it() {
        let described = |format| Image::described(Path::new("/d"), &said(format, 1 << 30));
        for (driver, name, notes) in [
            ("raw", "raw", 0),
            ("qcow2", "qcow2", 0),
            ("vhdx", "VHDX", 0),
            ("vpc", "VHD", 1),
        ] {
            let image = described(driver).unwrap();
            assert_eq!((image.format.as_str(), image.notes.len()), (name, notes));
            assert_eq!(image.node["driver"], driver);
        }
        assert_eq!(Image::described(Path::new("/d"), "{}"), None);
        assert_eq!(Image::described(Path::new("/d"), "no"), None);
    }

    #[test]
    fn fixed_vhd_is_known_by_its_footer_and_is_shorter_than_its_file() {
        let mut footer = [0; FOOTER];
        footer[..8].copy_from_slice(b"conectix");
        footer[60..64].copy_from_slice(&[0, 0, 0, 2]);
        assert!(is_fixed(&footer));
        footer[63] = 3;
        assert!(!is_fixed(&footer), "a VHD that grows");
        let image = Image::fixed(Path::new("/d"), 2 << 20);
        assert_eq!(image.node["size"], 2 << 20);
        assert!(image.notes.is_empty());
    }

    #[test]
    fn size_that_azure_refuses_is_told_with_the_next_one_that_it_takes() {
        let image = Image::fixed(Path::new("/d"), (2 << 20) + 512);
        assert_eq!(image.notes.len(), 1);
        assert!(image.notes[0].contains("3145728"), "{:?}", image.notes);
    }
}
