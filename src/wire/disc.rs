//! The provisioning disc, whichever file system it carries: UDF, else ISO 9660.
//!
//! Not a mount and not a cache: a name is looked up from the root each time. Few reads are the aim,
//! since a slow drive is behind it. Which disc is the right one is for the caller to say.

pub(in crate::wire) mod fault;
pub(in crate::wire) mod names;
pub(in crate::wire) mod sectors;
#[cfg(test)]
pub(in crate::wire) mod testing;

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use embedded_io::{Read, Seek};

pub use self::fault::{DiscFault, Feature, Structure};
use self::sectors::Sectors;
use super::iso9660::Iso9660;
use super::udf::Udf;

/// Directories and a file that one path may name.
pub(in crate::wire) const PATH_DEPTH: usize = 16;

/// A volume's label: 126 characters of two bytes, or 63 of three, are the most that UDF can write.
pub(in crate::wire) type Label = String;

/// Names a file system and what was found of its variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UDF.
    Udf {
        /// The revision in the standard's own digits: 0x0102 is UDF 1.02.
        revision: u16,
    },
    /// ISO 9660.
    Iso9660 {
        /// Names are read from the Joliet tree.
        joliet: bool,
        /// Names are read from Rock Ridge entries.
        rock_ridge: bool,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Udf { revision } => write!(f, "udf {:x}.{:02x}", revision >> 8, revision & 0xFF),
            Self::Iso9660 {
                rock_ridge: true, ..
            } => f.write_str("iso9660 with Rock Ridge"),
            Self::Iso9660 { joliet: true, .. } => f.write_str("iso9660 with Joliet"),
            Self::Iso9660 { .. } => f.write_str("iso9660"),
        }
    }
}

/// An open disc.
pub struct Disc<D> {
    sectors: Sectors<D>,
    volume: Volume,
    passed_over: Option<DiscFault>,
}

enum Volume {
    Udf(Box<Udf>),
    Iso9660(Box<Iso9660>),
}

impl<D: Read + Seek> Disc<D> {
    /// Finds the file system of a disc.
    ///
    /// Many discs carry both. UDF is tried first, as Azure's discs are UDF; when that side of the
    /// disc is damaged or uses what is not supported, ISO 9660 serves if it is there, and
    /// [`Disc::passed_over`] tells why.
    pub fn open(device: D) -> Result<Self, DiscFault> {
        let mut sectors = Sectors::new(device);
        let fault = match Udf::open(&mut sectors) {
            Ok(udf) => {
                return Ok(Self {
                    sectors,
                    volume: Volume::Udf(udf),
                    passed_over: None,
                });
            }
            Err(fault) => fault,
        };
        sectors.begin();
        let passed_over = (fault != DiscFault::NoFileSystem).then_some(fault);
        match Iso9660::open(&mut sectors) {
            Ok(iso) => Ok(Self {
                sectors,
                volume: Volume::Iso9660(iso),
                passed_over,
            }),
            Err(found) => Err(passed_over.unwrap_or(found)),
        }
    }

    /// Reads a whole file into the front of `out` and tells its length.
    ///
    /// `path` counts from the root, with `/` between names. A name matches as it is spelled, else
    /// whatever the case of its ASCII letters. Links are not followed.
    pub fn read_file(&mut self, path: &str, out: &mut [u8]) -> Result<usize, DiscFault> {
        let length = self.file(path, Some(out))?;
        // It fits in `out`, or it would have been refused.
        usize::try_from(length).map_err(|_| DiscFault::full(length))
    }

    /// Tells the length of a file in bytes.
    pub fn file_length(&mut self, path: &str) -> Result<u64, DiscFault> {
        self.file(path, None)
    }

    /// Tells which file system is being read.
    pub fn kind(&self) -> Kind {
        match &self.volume {
            Volume::Udf(udf) => Kind::Udf {
                revision: udf.revision(),
            },
            Volume::Iso9660(iso) => Kind::Iso9660 {
                joliet: iso.joliet(),
                rock_ridge: iso.rock_ridge(),
            },
        }
    }

    /// Tells the name of the volume; empty when it has none.
    pub fn label(&self) -> &str {
        match &self.volume {
            Volume::Udf(udf) => udf.label(),
            Volume::Iso9660(iso) => iso.label(),
        }
    }

    /// Tells why ISO 9660 is being read on a disc that promises UDF.
    pub fn passed_over(&self) -> Option<DiscFault> {
        self.passed_over
    }

    /// Looks at a file; if UDF turns out to be broken on the way, with ISO 9660.
    fn file(&mut self, path: &str, mut out: Option<&mut [u8]>) -> Result<u64, DiscFault> {
        self.sectors.begin();
        let fault = match &self.volume {
            Volume::Iso9660(iso) => return iso.file(&mut self.sectors, path, out),
            Volume::Udf(udf) => match udf.file(&mut self.sectors, path, out.as_deref_mut()) {
                Err(fault @ (DiscFault::Damaged { .. } | DiscFault::Unsupported { .. })) => fault,
                result => return result,
            },
        };
        self.sectors.begin();
        let iso = Iso9660::open(&mut self.sectors).map_err(|_| fault)?;
        let length = iso.file(&mut self.sectors, path, out).map_err(|_| fault)?;
        self.volume = Volume::Iso9660(iso);
        self.passed_over = Some(fault);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::string::ToString;
    use std::vec;
    use std::vec::Vec;

    use embedded_io::ErrorKind;

    use super::testing::{Drive, check_files, every_golden, find, golden, refused};
    use super::*;

    #[test]
    fn every_file_of_every_golden_disc_is_read() {
        for golden in every_golden() {
            let mut disc = Disc::open(Drive::new(&golden.image)).expect(&golden.name);
            assert_eq!(disc.kind().to_string(), golden.kind, "{}", golden.name);
            assert_eq!(disc.label(), golden.label, "{}", golden.name);
            assert_eq!(disc.passed_over(), None, "{}", golden.name);
            check_files(&mut disc, &golden);
        }
    }

    #[test]
    fn refused_discs_say_what_they_use() {
        for (name, feature) in [
            ("udf-150-virtual", Feature::VirtualPartition),
            ("udf-201-strategy-4096", Feature::IcbStrategy),
        ] {
            let image = refused(name);
            match Disc::open(Drive::new(&image)).err() {
                Some(DiscFault::Unsupported { feature: found, .. }) => assert_eq!(found, feature),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_that_are_not_files_are_not_found() {
        for golden in every_golden()
            .iter()
            .filter(|golden| golden.name.starts_with("udf-"))
        {
            let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
            for path in [
                "",
                "/",
                "dir",
                "dir/sub",
                "link",
                "nothing.xml",
                "many/deleted.txt",
                "many/file-with-a-rather-long-name-8.txt",
                "ovf-env.xml/small.txt",
                "..",
                "dir/../small.txt",
                "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r",
            ] {
                assert_eq!(disc.file_length(path), Err(DiscFault::NotFound), "{path}");
            }
            assert_eq!(
                disc.file_length("//dir/sub//DEEP.txt"),
                Ok(5),
                "{}",
                golden.name
            );
        }
    }

    #[test]
    fn iso_names_match_whatever_their_case_and_without_version() {
        for name in [
            "iso-plain",
            "iso-relaxed",
            "iso-rock",
            "iso-joliet",
            "xorriso-rock-joliet",
        ] {
            let golden = golden(name);
            let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
            assert_eq!(disc.file_length("/Dir/SUB/deep.TXT"), Ok(5), "{name}");
            assert_eq!(disc.file_length("small.txt"), Ok(25), "{name}");
            assert_eq!(
                disc.file_length("SMALL.TXT;1"),
                Err(DiscFault::NotFound),
                "{name}"
            );
            assert_eq!(
                disc.file_length("small"),
                Err(DiscFault::NotFound),
                "{name}"
            );
            assert_eq!(disc.file_length("dir"), Err(DiscFault::NotFound), "{name}");
            assert_eq!(
                disc.file_length("small.txt/deep.txt"),
                Err(DiscFault::NotFound),
                "{name}"
            );
        }
    }

    #[test]
    fn small_buffer_is_told_how_much_is_needed_and_left_alone() {
        for golden in every_golden() {
            let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
            let (_, length, path) = golden.files.iter().max_by_key(|file| file.1).unwrap();
            let mut out = vec![0xAA; usize::try_from(*length).unwrap() - 1];
            let needed = u32::try_from(*length).unwrap();
            let full = DiscFault::Full { needed };
            assert_eq!(disc.read_file(path, &mut out), Err(full), "{}", golden.name);
            assert!(out.iter().all(|byte| *byte == 0xAA), "{}", golden.name);
        }
    }

    #[test]
    fn opening_and_reading_the_document_takes_few_reads() {
        for golden in every_golden() {
            let drive = Drive::new(&golden.image);
            let reads = Rc::clone(&drive.reads);
            let mut disc = Disc::open(drive).unwrap();
            let opening = reads.get();
            let (name, path) = match golden.name.as_str() {
                "iso-plain" => (&golden.name, "ovf_env.xml"),
                _ => (&golden.name, "ovf-env.xml"),
            };
            disc.read_file(path, &mut [0; 2048]).unwrap();
            let document = reads.get() - opening;
            std::println!("{name}: {opening} reads to open, {document} for the document");
            assert!(opening + document <= 8, "{name}: {opening} + {document}");
        }
    }

    #[test]
    fn file_in_one_extent_is_read_at_once() {
        for name in ["udf-102-2048", "udf-201-2048", "iso-udf", "iso-rock"] {
            let golden = golden(name);
            let drive = Drive::new(&golden.image);
            let reads = Rc::clone(&drive.reads);
            let mut disc = Disc::open(drive).unwrap();
            let mut out = vec![0; 300_000];
            disc.file_length("CustomData.bin").unwrap();
            let before = reads.get();
            disc.read_file("CustomData.bin", &mut out).unwrap();
            // The whole sectors, the rest of the last one, and at most one look at the directory.
            assert!(
                reads.get() - before <= 4,
                "{name}: {}",
                reads.get() - before
            );
        }
    }

    #[test]
    fn drive_without_a_length_and_with_short_reads_serves() {
        for golden in every_golden() {
            let mut drive = Drive::new(&golden.image);
            drive.knows_its_length = false;
            drive.most_at_once = 2048;
            check_files(&mut Disc::open(drive).unwrap(), &golden);
        }
    }

    #[test]
    fn bad_sector_beside_the_wanted_ones_does_no_harm() {
        // Sector 20 follows the recognition sequence, 38 the descriptors, of a genisoimage disc.
        let golden = golden("iso-udf");
        let mut drive = Drive::new(&golden.image);
        drive.bad = &[22, 38, 254];
        let mut disc = Disc::open(drive).unwrap();
        assert_eq!(disc.kind(), Kind::Udf { revision: 0x0102 });
        check_files(&mut disc, &golden);
    }

    #[test]
    fn unreadable_sector_is_named() {
        let golden = golden("udf-102-2048");
        let file = find(&golden.image, b"000000000000000000007919");
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        let mut out = vec![0; 300_000];
        disc.read_file("CustomData.bin", &mut out).unwrap();
        let bad = [file / 2048];
        let mut drive = Drive::new(&golden.image);
        drive.bad = &bad;
        let mut disc = Disc::open(drive).unwrap();
        let fault = DiscFault::Device {
            sector: bad[0] as u32,
            kind: ErrorKind::Other,
        };
        assert_eq!(disc.read_file("CustomData.bin", &mut out), Err(fault));
    }

    #[test]
    fn disc_that_ends_early_is_told_from_a_bad_one() {
        let golden = golden("iso-rock");
        let file = find(&golden.image, b"000000000000000000007919") / 2048;
        let cut = &golden.image[..(file + 40) * 2048];
        let mut disc = Disc::open(Drive::new(cut)).unwrap();
        match disc.read_file("CustomData.bin", &mut vec![0; 300_000]) {
            Err(DiscFault::Short { sector }) => assert_eq!(sector as usize, cut.len() / 2048),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn empty_and_foreign_discs_carry_no_file_system() {
        for image in [
            vec![],
            vec![0; 20 * 2048],
            vec![0; 4 << 20],
            vec![0x5A; 4 << 20],
        ] {
            let fault = Disc::open(Drive::new(&image)).err();
            let short = matches!(fault, Some(DiscFault::Short { .. })) && image.len() < 1 << 20;
            assert!(short || fault == Some(DiscFault::NoFileSystem), "{fault:?}");
        }
    }

    #[test]
    fn unreadable_disc_is_not_called_empty() {
        let golden = golden("udf-102-2048");
        let all: Vec<usize> = (0..golden.image.len() / 2048).collect();
        let mut drive = Drive::new(&golden.image);
        drive.bad = &all;
        assert!(matches!(
            Disc::open(drive).err(),
            Some(DiscFault::Device { sector: 16, .. })
        ));
    }

    #[test]
    fn other_anchors_serve_when_the_first_is_gone() {
        for name in [
            "udf-102-2048",
            "udf-150-512",
            "udf-201-4096",
            "udf-200-1024-shortad",
        ] {
            let mut golden = golden(name);
            let size = match name {
                "udf-150-512" => 512,
                "udf-200-1024-shortad" => 1024,
                "udf-201-4096" => 4096,
                _ => 2048,
            };
            golden.image[256 * size..257 * size].fill(0);
            check_files(&mut Disc::open(Drive::new(&golden.image)).unwrap(), &golden);
        }
    }

    #[test]
    fn reserve_descriptors_serve_when_the_main_ones_are_gone() {
        for name in ["udf-102-2048", "iso-udf"] {
            let mut golden = golden(name);
            let at = 256 * 2048 + 16;
            let main = u32::from_le_bytes(golden.image[at + 4..at + 8].try_into().unwrap());
            let main = main as usize * 2048;
            // Without the terminating descriptor this could be an end; with damage it is none.
            golden.image[main + 600..main + 6 * 2048].fill(0x55);
            let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
            assert!(matches!(disc.kind(), Kind::Udf { .. }));
            check_files(&mut disc, &golden);
        }
    }

    #[test]
    fn iso_serves_when_the_udf_side_is_broken_and_says_why() {
        let mut golden = golden("iso-udf-rock-joliet");
        let sectors = golden.image.len() / 2048;
        for anchor in [256, sectors - 1, sectors - 257] {
            let bytes = &mut golden.image[anchor * 2048..][..512];
            // genisoimage leaves out the one that is 257 from the end.
            if bytes.starts_with(&[2, 0, 2, 0]) {
                bytes.fill(0);
            }
        }
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        assert_eq!(
            disc.kind(),
            Kind::Iso9660 {
                joliet: false,
                rock_ridge: true
            }
        );
        let fault = DiscFault::Damaged {
            structure: Structure::Anchor,
            sector: 256,
        };
        assert_eq!(disc.passed_over(), Some(fault));
        check_files(&mut disc, &golden);
    }

    #[test]
    fn iso_serves_when_udf_turns_out_broken_on_the_way() {
        let mut golden = golden("iso-udf-rock-joliet");
        // One bit in the name of the file, in its UDF file identifier only.
        let name = golden
            .image
            .windows(12)
            .position(|bytes| bytes == b"\x08ovf-env.xml")
            .unwrap();
        golden.image[name + 1] ^= 1;
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        assert!(matches!(disc.kind(), Kind::Udf { .. }));
        check_files(&mut disc, &golden);
        assert!(matches!(disc.kind(), Kind::Iso9660 { .. }));
        let sector = (name / 2048) as u32;
        let fault = DiscFault::Damaged {
            structure: Structure::FileIdentifier,
            sector,
        };
        assert_eq!(disc.passed_over(), Some(fault));
    }

    #[test]
    fn moved_sectors_of_a_sparable_partition_are_refused() {
        let mut golden = golden("udf-201-sparable");
        let tables: Vec<usize> = golden
            .image
            .chunks(2048)
            .enumerate()
            .filter(|(_, block)| block[17..].starts_with(b"*UDF Sparing Table"))
            .map(|(index, _)| index)
            .collect();
        assert!(tables.len() > 1);
        for table in &tables {
            golden.image[table * 2048 + 56..][..4].copy_from_slice(&32_u32.to_le_bytes());
        }
        match Disc::open(Drive::new(&golden.image)).err() {
            Some(DiscFault::Unsupported { feature, sector }) => {
                assert_eq!(feature, Feature::RelocatedSectors);
                assert!(tables.contains(&(sector as usize)));
            }
            other => panic!("{other:?}"),
        }
    }
}
