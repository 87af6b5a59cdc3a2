//! Fresh discs, made on the spot by genisoimage and mkudffs, are read back.
//!
//! The tools are looked for in the directory that `PREROOT_TOOLS` names (it may be a tree of unpacked
//! packages) and in `PATH`. Without them a test says that it was skipped, but fails where `CI` or
//! `PREROOT_STRICT` is set.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use embedded_io::{ErrorKind, ErrorType, Read, Seek, SeekFrom};
use preroot::wire::disc::{Disc, DiscFault, Feature, Kind};

/// An image file as a drive.
struct Image(File);

impl ErrorType for Image {
    type Error = ErrorKind;
}

impl Read for Image {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, ErrorKind> {
        self.0.read(out).map_err(|_| ErrorKind::Other)
    }
}

impl Seek for Image {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ErrorKind> {
        let to = match to {
            SeekFrom::Start(offset) => io::SeekFrom::Start(offset),
            SeekFrom::End(offset) => io::SeekFrom::End(offset),
            SeekFrom::Current(offset) => io::SeekFrom::Current(offset),
        };
        self.0.seek(to).map_err(|_| ErrorKind::Other)
    }
}

fn open(image: &Path) -> Result<Disc<Image>, DiscFault> {
    Disc::open(Image(File::open(image).unwrap()))
}

/// Finds a tool, or says why the test that needs it is skipped.
fn tool(name: &str, package: &str) -> Option<PathBuf> {
    let base = env::var_os("PREROOT_TOOLS").map(PathBuf::from);
    let below =
        |base: PathBuf| ["", "bin", "sbin", "usr/bin", "usr/sbin"].map(|place| base.join(place));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = base.into_iter().flat_map(below).collect();
    places.extend(env::split_paths(&path));
    // Administrators' tools are not in everybody's PATH.
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places
        .into_iter()
        .map(|place| place.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        let missing = format!(
            "{name} is not in PATH nor below PREROOT_TOOLS; the package that has it is {package}"
        );
        let strict = ["CI", "PREROOT_STRICT"]
            .iter()
            .any(|name| env::var_os(name).is_some());
        assert!(!strict, "{missing}");
        println!("skipped: {missing}");
    }
    found
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// Makes an empty directory for one test.
fn scratch(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("discs")
        .join(name);
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
        _ => fs::create_dir_all(&place).unwrap(),
    }
    place
}

/// Bytes of which no two sectors are alike.
fn numbered(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(length).collect()
}

#[test]
fn fresh_genisoimage_discs_are_read() {
    let Some(genisoimage) = tool("genisoimage", "genisoimage") else {
        return;
    };
    let place = scratch("genisoimage");
    let tree = place.join("tree");
    let mut files = vec![
        ("ovf-env.xml".to_owned(), b"<Environment/>".to_vec()),
        ("CustomData.bin".to_owned(), numbered(300_001)),
        ("sector.bin".to_owned(), numbered(2048)),
        ("empty.bin".to_owned(), Vec::new()),
        ("a/b/c/d/deep.txt".to_owned(), b"deep".to_vec()),
    ];
    files.extend((0..200).map(|n| (format!("many/file-number-{n}.txt"), numbered(n))));
    for (path, content) in &files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let udf = Kind::Udf { revision: 0x0102 };
    let iso = |joliet, rock_ridge| Kind::Iso9660 { joliet, rock_ridge };
    for (options, kind) in [
        (&["-udf"][..], udf),
        (&["-udf", "-R", "-J"], udf),
        (&["-R"], iso(false, true)),
        (&["-R", "-J"], iso(false, true)),
        (&["-J"], iso(true, false)),
        (&["-iso-level", "4"], iso(false, false)),
    ] {
        let image = place.join(format!("disc{}.img", options.concat()));
        let mut command = Command::new(&genisoimage);
        command
            .args(["-quiet", "-V", "rd_rdfe_stable"])
            .args(options);
        run(command.arg("-o").arg(&image).arg(&tree));
        let mut disc = open(&image).unwrap();
        assert_eq!(disc.kind(), kind, "{options:?}");
        assert_eq!(disc.label(), "rd_rdfe_stable", "{options:?}");
        for (path, content) in &files {
            let mut out = vec![0; content.len() + 1];
            let length = disc.read_file(path, &mut out);
            assert_eq!(length, Ok(content.len()), "{options:?} {path}");
            assert!(out.starts_with(content), "{options:?} {path}");
        }
        assert_eq!(
            disc.file_length("absent"),
            Err(DiscFault::NotFound),
            "{options:?}"
        );
    }
}

#[test]
fn fresh_mkudffs_discs_are_opened() {
    let Some(mkudffs) = tool("mkudffs", "udftools") else {
        return;
    };
    let place = scratch("mkudffs");
    let image = place.join("disc.img");
    let make = |options: &[&str]| {
        let _ = fs::remove_file(&image);
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        run(Command::new(&mkudffs)
            .args(["--utf8", "--label=Grüße 名前"])
            .args(options)
            .arg(&image));
        open(&image)
    };
    let revisions = [
        ("1.02", 0x0102),
        ("1.50", 0x0150),
        ("2.00", 0x0200),
        ("2.01", 0x0201),
    ];
    for (name, revision) in revisions {
        for size in ["512", "1024", "2048", "4096"] {
            let mut disc = make(&["-m", "hd", "-r", name, "-b", size]).unwrap();
            assert_eq!(disc.kind(), Kind::Udf { revision }, "{name} {size}");
            assert_eq!(disc.label(), "Grüße 名前", "{name} {size}");
            assert_eq!(
                disc.file_length("absent"),
                Err(DiscFault::NotFound),
                "{name} {size}"
            );
        }
        let disc = make(&["-m", "dvdram", "-r", name]).unwrap();
        assert_eq!(disc.kind(), Kind::Udf { revision }, "{name}");
    }
    for medium in ["dvdrw", "cdrw"] {
        let disc = make(&["-m", medium, "-r", "2.01"]).unwrap();
        assert_eq!(disc.kind(), Kind::Udf { revision: 0x0201 }, "{medium}");
    }
    for (medium, revision) in [("cdr", "1.50"), ("dvdr", "2.01"), ("bdr", "2.50")] {
        let fault = make(&["-m", medium, "-r", revision]).err();
        let named = |fault| {
            matches!(
                fault,
                DiscFault::Unsupported {
                    feature: Feature::VirtualPartition,
                    ..
                }
            )
        };
        assert!(fault.is_some_and(named), "{medium}: {fault:?}");
    }
}
