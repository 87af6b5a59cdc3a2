//! Golden discs and a drive in memory, for the tests of the disc readers.

use std::borrow::ToOwned;
use std::format;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::string::String;
use std::vec;
use std::vec::Vec;

use core::cell::Cell;
use embedded_io::{ErrorKind, ErrorType, Read, Seek, SeekFrom};

use super::Disc;

/// An image in memory as a drive that counts.
pub(in crate::wire) struct Drive<'a> {
    pub(in crate::wire) image: &'a [u8],
    position: usize,
    pub(in crate::wire) reads: Rc<Cell<usize>>,
    /// Sectors that cannot be read.
    pub(in crate::wire) bad: &'a [usize],
    pub(in crate::wire) knows_its_length: bool,
    pub(in crate::wire) most_at_once: usize,
}

impl<'a> Drive<'a> {
    pub(in crate::wire) fn new(image: &'a [u8]) -> Self {
        let reads = Rc::new(Cell::new(0));
        let most_at_once = usize::MAX;
        Self {
            image,
            position: 0,
            reads,
            bad: &[],
            knows_its_length: true,
            most_at_once,
        }
    }
}

impl ErrorType for Drive<'_> {
    type Error = ErrorKind;
}

impl Read for Drive<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, ErrorKind> {
        self.reads.set(self.reads.get() + 1);
        assert_eq!(self.position % 2048, 0, "only whole sectors are read");
        assert_eq!(out.len() % 2048, 0, "only whole sectors are read");
        let rest = self.image.get(self.position..).unwrap_or_default();
        let count = rest.len().min(out.len()).min(self.most_at_once);
        let first = self.position / 2048;
        let last = (self.position + count).div_ceil(2048);
        if self.bad.iter().any(|bad| (first..last).contains(bad)) {
            return Err(ErrorKind::Other);
        }
        out[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

impl Seek for Drive<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ErrorKind> {
        match to {
            SeekFrom::Start(to) => self.position = usize::try_from(to).unwrap_or(usize::MAX),
            SeekFrom::End(0) if self.knows_its_length => self.position = self.image.len(),
            _ => return Err(ErrorKind::Unsupported),
        }
        Ok(self.position as u64)
    }
}

/// A golden image and what its maker put on it; how it was made is in the README beside it.
pub(in crate::wire) struct Golden {
    pub(in crate::wire) name: String,
    pub(in crate::wire) image: Vec<u8>,
    pub(in crate::wire) kind: String,
    pub(in crate::wire) label: String,
    /// CRC-32, length and path.
    pub(in crate::wire) files: Vec<(u32, u64, String)>,
}

fn unpacked(path: &Path) -> Vec<u8> {
    let packed = std::fs::read(path).unwrap();
    let mut image = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut image)
        .unwrap();
    image
}

pub(in crate::wire) fn golden(name: &str) -> Golden {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/disc");
    let image = unpacked(&base.join(format!("{name}.img.gz")));
    let list = std::fs::read_to_string(base.join(format!("{name}.list"))).unwrap();
    let (mut kind, mut label, mut files) = (String::new(), String::new(), Vec::new());
    for line in list.lines() {
        match line.split_once(' ').unwrap() {
            ("kind", rest) => rest.clone_into(&mut kind),
            ("label", rest) => rest.clone_into(&mut label),
            ("file", rest) => {
                let mut words = rest.splitn(3, ' ');
                let crc = u32::from_str_radix(words.next().unwrap(), 16).unwrap();
                let length = words.next().unwrap().parse().unwrap();
                files.push((crc, length, words.next().unwrap().to_owned()));
            }
            _ => panic!("{name}.list: {line}"),
        }
    }
    Golden {
        name: name.to_owned(),
        image,
        kind,
        label,
        files,
    }
}

pub(in crate::wire) fn every_golden() -> Vec<Golden> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/disc");
    let paths = std::fs::read_dir(base)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut lists: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "list"))
        .collect();
    lists.sort();
    assert!(lists.len() >= 15, "the golden images are gone");
    lists
        .iter()
        .map(|path| golden(path.file_stem().unwrap().to_str().unwrap()))
        .collect()
}

pub(in crate::wire) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

pub(in crate::wire) fn check_files(disc: &mut Disc<Drive<'_>>, golden: &Golden) {
    for (sum, length, path) in &golden.files {
        let name = &golden.name;
        assert_eq!(disc.file_length(path), Ok(*length), "{name}: {path}");
        let mut out = vec![0xAA; usize::try_from(*length).unwrap() + 3];
        assert_eq!(
            disc.read_file(path, &mut out).map(|n| n as u64),
            Ok(*length),
            "{path}"
        );
        let (data, beyond) = out.split_at(out.len() - 3);
        assert_eq!(crc(data), *sum, "{name}: {path}");
        assert_eq!(beyond, [0xAA; 3], "{name}: {path}");
    }
}

/// Unpacks an image that the reader is to refuse.
pub(in crate::wire) fn refused(name: &str) -> Vec<u8> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/disc/refused");
    unpacked(&base.join(format!("{name}.img.gz")))
}

/// Finds the first place of some bytes.
pub(in crate::wire) fn find(image: &[u8], wanted: &[u8]) -> usize {
    image
        .windows(wanted.len())
        .position(|bytes| bytes == wanted)
        .unwrap()
}

/// Opens an image, good or bad, and reads files of every sort; tells whether it opened.
///
/// Whatever comes of it must come soon: the reads of each step are bounded.
pub(in crate::wire) fn exercise(image: &[u8], out: &mut [u8]) -> bool {
    // One operation may take 4096 transfers on each side of a bridge, each of two reads at the end
    // of the device, and open the other side in between.
    const MOST: usize = 3 * 2 * 4096;
    let drive = Drive::new(image);
    let reads = Rc::clone(&drive.reads);
    let disc = Disc::open(drive);
    assert!(reads.get() <= MOST, "{} reads to open", reads.get());
    let Ok(mut disc) = disc else { return false };
    for path in [
        "ovf-env.xml",
        "CustomData.bin",
        "many/file-with-a-rather-long-name-59.txt",
        "dir/sub/deep.txt",
        "woven-a.bin",
    ] {
        let before = reads.get();
        if let Ok(length) = disc.read_file(path, out) {
            assert!(length <= out.len());
        }
        let taken = reads.get() - before;
        assert!(taken <= MOST, "{taken} reads of {path}");
    }
    true
}
