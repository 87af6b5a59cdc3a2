//! Writes the platform's disc: the DVD that brings `ovf-env.xml` to a new VM.
//!
//! UDF 1.02, 1.50 and 2.01, ISO 9660 with or without Joliet and Rock Ridge, or both over the same
//! file data. It writes finished read-only volumes and reads nothing. Written from ECMA-167,
//! the OSTA UDF documents and ECMA-119, and from no reader's code, so that a reader that agrees
//! with it agrees with the documents. What the documents leave open, options choose: how files are
//! cut into extents, how extents are described, what is stored inside its own entry.

mod ecma167;
mod image;
mod iso9660;
pub mod ovf;
mod udf;

use image::{Extent, Image, SECTOR};

/// ECMA-119 6.2.1 and ECMA-167 2/8.1.1: the sectors ahead of this are the system's.
const FIRST_DESCRIPTOR: u32 = 16;

/// Is the UDF revisions this writes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Revision {
    /// What the platform is thought to send: NSR02, file entries.
    R102,
    /// NSR02, file entries, another number.
    R150,
    /// NSR03, extended file entries.
    R201,
}

/// Collects what shall be on a disc, then makes its sectors.
///
/// The caller is a test: what no disc can hold (a label of 31 letters, two files of one name) is a
/// panic of [`Builder::build`] and not an error.
#[derive(Clone, Debug)]
pub struct Builder {
    label: String,
    nodes: Vec<Node>,
    udf: Option<Revision>,
    iso9660: Option<iso9660::Style>,
    embedded: bool,
    long_allocation: bool,
    extent_sectors: Option<u32>,
    sectors: u32,
}

/// Is one file or directory; the first one is the root, its own parent.
#[derive(Clone, Debug)]
struct Node {
    name: String,
    parent: usize,
    children: Vec<usize>,
    /// A directory has none.
    content: Option<Vec<u8>>,
}

impl Node {
    fn is_directory(&self) -> bool {
        self.content.is_none()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Starts an empty disc, which becomes UDF 1.02 unless told otherwise.
    pub fn new() -> Self {
        let root = Node {
            name: String::new(),
            parent: 0,
            children: Vec::new(),
            content: None,
        };
        Self {
            label: "rd_rdfe_stable.240314-0926".to_owned(),
            nodes: vec![root],
            udf: None,
            iso9660: None,
            embedded: false,
            long_allocation: false,
            extent_sectors: None,
            sectors: 0,
        }
    }

    /// Names the volume.
    #[must_use]
    pub fn label(mut self, label: &str) -> Self {
        label.clone_into(&mut self.label);
        self
    }

    /// Adds a file; directories on the way to it are made.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.enter(directory);
        self.add(parent, name, Some(content.into()));
        self
    }

    /// Adds a directory, which may stay empty.
    #[must_use]
    pub fn directory(mut self, path: &str) -> Self {
        self.enter(path);
        self
    }

    /// Writes the volume as UDF.
    #[must_use]
    pub fn udf(mut self, revision: Revision) -> Self {
        self.udf = Some(revision);
        self
    }

    /// Writes the volume as ISO 9660; after [`Builder::udf`] as a bridge of both.
    ///
    /// Without Joliet or [`Builder::rock_ridge`] file names keep only what ECMA-119 allows:
    /// `ovf-env.xml` becomes `OVF_ENV.XML;1`.
    #[must_use]
    pub fn iso9660(mut self, joliet: bool) -> Self {
        self.iso9660.get_or_insert_default().joliet = joliet;
        self
    }

    /// Adds Rock Ridge names to the ISO 9660 volume.
    #[must_use]
    pub fn rock_ridge(mut self) -> Self {
        self.iso9660.get_or_insert_default().rock_ridge = true;
        self
    }

    /// Writes ISO 9660 names as they are, without a version, as many tools do in spite of ECMA-119.
    #[must_use]
    pub fn relaxed_names(mut self) -> Self {
        self.iso9660.get_or_insert_default().relaxed = true;
        self
    }

    /// Stores UDF files and directories inside their entries where they fit.
    #[must_use]
    pub fn embedded(mut self) -> Self {
        self.embedded = true;
        self
    }

    /// Describes UDF extents by long allocation descriptors.
    #[must_use]
    pub fn long_allocation(mut self) -> Self {
        self.long_allocation = true;
        self
    }

    /// Cuts files into extents of so many sectors and lays them out back to front, with junk between.
    ///
    /// A reader that takes a file for contiguous, or its extents for ascending, reads junk.
    ///
    /// # Panics
    ///
    /// When an extent is to have no sector at all.
    #[must_use]
    pub fn extent_sectors(mut self, sectors: u32) -> Self {
        assert!(sectors > 0, "an extent has a sector at least");
        self.extent_sectors = Some(sectors);
        self
    }

    /// Makes the disc at least so many sectors long.
    #[must_use]
    pub fn at_least_sectors(mut self, sectors: u32) -> Self {
        self.sectors = sectors;
        self
    }

    /// Makes the sectors of the disc, 2048 bytes each.
    ///
    /// # Panics
    ///
    /// When no disc of the kind can hold what was asked for.
    pub fn build(&self) -> Vec<u8> {
        let revision = match self.iso9660 {
            None => Some(self.udf.unwrap_or(Revision::R102)),
            Some(_) => self.udf,
        };
        let mut image = Image::new();
        let length = self.extent_bytes();
        let parts = |node: &Node| {
            node.content
                .as_ref()
                .map_or(0, |c| c.len().div_ceil(length))
        };
        let parts: Vec<usize> = self.nodes.iter().map(parts).collect();
        let iso = self.iso9660.map(|style| {
            // Ahead of the partition, after the UDF structures whose places are fixed.
            let start = revision.map(|_| udf::FIRST_FREE);
            iso9660::Plan::new(style, &self.nodes, &parts, start)
        });
        let free = iso.as_ref().map_or(0, iso9660::Plan::end);
        let udf = revision.map(|revision| {
            let recognition = iso
                .as_ref()
                .map_or(FIRST_DESCRIPTOR, iso9660::Plan::descriptors_end);
            let places = (recognition, free.max(udf::FIRST_FREE));
            udf::Plan::new(
                revision,
                self.embedded,
                self.long_allocation,
                places,
                &self.nodes,
            )
        });

        let mut next = udf.as_ref().map_or(free, udf::Plan::end);
        let mut extents = Vec::new();
        for node in &self.nodes {
            let content = node.content.as_deref().unwrap_or_default();
            // A bridge needs the sectors even where UDF does not look at them.
            let inside = udf
                .as_ref()
                .is_some_and(|plan| plan.is_embedded(&self.nodes, node))
                && iso.is_none();
            let content = if inside { &[] } else { content };
            extents.push(self.lay_out(&mut image, &mut next, content));
        }
        if let Some(plan) = udf {
            next = plan.write(
                &mut image,
                &self.label,
                &self.nodes,
                &extents,
                next,
                self.sectors,
            );
        }
        next = next.max(self.sectors);
        if let Some(plan) = iso {
            plan.write(&mut image, &self.label, &self.nodes, &extents, next);
        }
        image.finish(next)
    }

    /// Gives the length of all extents of a file but the last (4/14.14.1.1 of ECMA-167: 30 bits).
    fn extent_bytes(&self) -> usize {
        const LARGEST: u32 = (1 << 30) / SECTOR as u32 - 1;
        self.extent_sectors.unwrap_or(LARGEST).min(LARGEST) as usize * SECTOR
    }

    /// Writes one file's content to the next free sectors and says where its parts are, in order.
    fn lay_out(&self, image: &mut Image, next: &mut u32, content: &[u8]) -> Vec<Extent> {
        let mut extents = Vec::new();
        for part in content.chunks(self.extent_bytes()).rev() {
            let extent = Extent {
                sector: *next,
                bytes: part.len() as u32,
            };
            image.write(extent.sector, part);
            *next += extent.sectors();
            if self.extent_sectors.is_some() {
                image.write(*next, &[0xa5; SECTOR]);
                *next += 1;
            }
            extents.push(extent);
        }
        extents.reverse();
        extents
    }

    fn enter(&mut self, path: &str) -> usize {
        path.split('/')
            .filter(|part| !part.is_empty())
            .fold(0, |parent, name| {
                let known = self.nodes[parent].children.iter().copied();
                let found = known.clone().find(|&child| self.nodes[child].name == name);
                found.unwrap_or_else(|| self.add(parent, name, None))
            })
    }

    fn add(&mut self, parent: usize, name: &str, content: Option<Vec<u8>>) -> usize {
        assert!(!matches!(name, "" | "." | ".."), "a file has a name");
        let siblings = &self.nodes[parent].children;
        assert!(
            self.nodes[parent].is_directory(),
            "{name} cannot be inside a file"
        );
        assert!(
            siblings.iter().all(|&other| self.nodes[other].name != name),
            "{name} is twice"
        );
        let index = self.nodes.len();
        let name = name.to_owned();
        self.nodes.push(Node {
            name,
            parent,
            children: Vec::new(),
            content,
        });
        self.nodes[parent].children.push(index);
        index
    }
}

/// Starts an `ovf-env.xml` for a VM of this name and this admin user.
pub fn ovf(host_name: &str, user_name: &str) -> ovf::Document {
    ovf::Document::new(host_name, user_name)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::{env, fs};

    use super::Revision::{R102, R150, R201};
    use super::*;

    const LABEL: &str = "rd_rdfe_stable.240314-0926";

    /// Bytes without a pattern, so that a misplaced sector shows.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            (
                "ovf-env.xml",
                ovf("vm-demo01", "opsadmin")
                    .password("a<b")
                    .build()
                    .into_bytes(),
            ),
            ("CustomData.bin", noise(3 * 65536 + 17)),
            ("empty.txt", Vec::new()),
            ("dir/inner/exact.bin", noise(2 * SECTOR)),
            ("dir/small.bin", noise(1700)),
        ]
    }

    /// The same files in every way of writing them.
    fn discs() -> Vec<(String, Builder, Option<Revision>)> {
        let full = || {
            let files = files().into_iter();
            files
                .fold(Builder::new().label(LABEL), |disc, (path, content)| {
                    disc.file(path, content)
                })
                .directory("void")
        };
        let mut discs = Vec::new();
        for revision in [R102, R150, R201] {
            let udf = || full().udf(revision);
            let mut add = |name: &str, disc| {
                discs.push((format!("{revision:?}-{name}"), disc, Some(revision)));
            };
            add("plain", udf());
            add("embedded", udf().embedded());
            add("long", udf().long_allocation());
            add("cut", udf().extent_sectors(3));
            // So many extents that their descriptors need a block of their own.
            add(
                "chained",
                udf()
                    .file("big.bin", noise(300 * SECTOR + 5))
                    .extent_sectors(1),
            );
            add("padded", udf().at_least_sectors(1000));
            add("bridge", udf().iso9660(true));
        }
        discs.push((
            "iso".to_owned(),
            full().iso9660(false).relaxed_names(),
            None,
        ));
        discs.push(("joliet".to_owned(), full().iso9660(true), None));
        discs.push((
            "rock-ridge".to_owned(),
            full().iso9660(false).rock_ridge(),
            None,
        ));
        discs
    }

    /// Finds a program on PATH; where everything must be checked, one that is missing is a failure.
    fn tool(name: &str) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        // Where a user's PATH ends and an administrator's goes on.
        let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let mut places = env::split_paths(&path).chain(more);
        let found = places.find_map(|place| Some(place.join(name)).filter(|file| file.is_file()));
        if found.is_none() {
            let strict = ["CI", "PREROOT_STRICT"]
                .iter()
                .any(|name| env::var_os(name).is_some());
            assert!(
                !strict,
                "{name} is not installed, and this test must not be skipped"
            );
            eprintln!("skipped: {name} is not installed");
        }
        found
    }

    fn run(program: &Path, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(program).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} {arguments:?}: {said}",
            program.display()
        );
        assert_eq!(said, "", "{} {arguments:?}", program.display());
        output.stdout
    }

    /// Writes each disc to a file of its own and hands its path to the check.
    fn each(test: &str, check: impl Fn(&str, &str, Option<Revision>)) {
        let folder = env::temp_dir().join(format!("lab-disc-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, disc, revision) in discs() {
            let path = folder.join(&name);
            fs::write(&path, disc.build()).unwrap();
            check(&name, path.to_str().unwrap(), revision);
        }
        fs::remove_dir_all(folder).unwrap();
    }

    fn number(revision: Revision) -> &'static str {
        match revision {
            R102 => "1.02",
            R150 => "1.50",
            R201 => "2.01",
        }
    }

    #[test]
    fn same_files_make_the_same_disc() {
        for ((name, first, _), (_, second, _)) in discs().into_iter().zip(discs()) {
            assert_eq!(first.build(), second.build(), "{name}");
        }
    }

    #[test]
    fn disc_is_whole_sectors_and_as_long_as_asked() {
        for (name, disc, _) in discs() {
            assert_eq!(disc.build().len() % SECTOR, 0, "{name}");
        }
        assert_eq!(
            Builder::new().at_least_sectors(4096).build().len(),
            4096 * SECTOR
        );
        assert_eq!(
            Builder::new()
                .iso9660(false)
                .at_least_sectors(99)
                .build()
                .len(),
            99 * SECTOR
        );
    }

    #[test]
    fn udfinfo_finds_a_closed_volume_with_our_label() {
        let Some(udfinfo) = tool("udfinfo") else {
            return;
        };
        each("udfinfo", |name, path, revision| {
            let Some(revision) = revision else { return };
            let said = String::from_utf8(run(&udfinfo, &[path])).unwrap();
            let has =
                |line: String| assert!(said.lines().any(|l| l == line), "{name}: {line}\n{said}");
            has(format!("label={LABEL}"));
            has(format!("udfrev={}", number(revision)));
            has("integrity=closed".to_owned());
            has("accesstype=readonly".to_owned());
            has("numdirs=4".to_owned());
            has(format!(
                "numfiles={}",
                files().len() + usize::from(name.ends_with("chained"))
            ));
            let sectors = fs::metadata(path).unwrap().len() as usize / SECTOR;
            has("behindblocks=0".to_owned());
            let end = format!("start={}, blocks=1, type=ANCHOR", sectors - 1);
            assert!(said.contains(&end), "{name}: {end}\n{said}");
        });
    }

    #[test]
    fn blkid_finds_the_kind_and_the_label() {
        let Some(blkid) = tool("blkid") else { return };
        each("blkid", |name, path, revision| {
            let said = String::from_utf8(run(&blkid, &["-p", "-o", "export", path])).unwrap();
            let has =
                |line: &str| assert!(said.lines().any(|l| l == line), "{name}: {line}\n{said}");
            has(&format!("LABEL={LABEL}"));
            match revision {
                Some(revision) => {
                    has("TYPE=udf");
                    has(&format!("VERSION={}", number(revision)));
                }
                None => has("TYPE=iso9660"),
            }
        });
    }

    #[test]
    fn isoinfo_reads_the_files_of_iso_9660() {
        let Some(isoinfo) = tool("isoinfo") else {
            return;
        };
        each("isoinfo", |name, path, revision| {
            let names = match name {
                "rock-ridge" => "-R",
                "iso" => "",
                _ if name.ends_with("bridge") || name == "joliet" => "-J",
                _ => return,
            };
            let said = String::from_utf8(run(&isoinfo, &["-d", "-i", path])).unwrap();
            assert!(
                said.contains(&format!("Volume id: {LABEL}\n")),
                "{name}: {said}"
            );
            assert_eq!(
                said.contains("Joliet with UCS level 3 found"),
                names == "-J",
                "{name}"
            );
            assert!(revision.is_none() || names == "-J");
            for (file, content) in files() {
                // The version is there unless Rock Ridge or a relaxed mind has left it out.
                let version = if names == "-J" { ";1" } else { "" };
                let file = format!("/{file}{version}");
                let arguments = [names, "-i", path, "-x", &file];
                let arguments = if names.is_empty() {
                    &arguments[1..]
                } else {
                    &arguments[..]
                };
                let read = run(&isoinfo, arguments);
                assert!(
                    read == content,
                    "{name}: {file} is {} bytes of others",
                    read.len()
                );
            }
        });
    }

    #[test]
    fn seven_zip_reads_the_files_of_udf() {
        let Some(program) = tool("7z") else { return };
        each("7z", |name, path, revision| {
            // It takes the space ahead of the last anchor for an error, and in a bridge it sees ISO.
            if revision.is_none()
                || ["cut", "chained", "padded"]
                    .iter()
                    .any(|n| name.ends_with(n))
            {
                return;
            }
            for (file, content) in files() {
                let read = run(&program, &["x", "-so", path, file]);
                assert!(
                    read == content,
                    "{name}: {file} is {} bytes of others",
                    read.len()
                );
            }
        });
    }

    #[test]
    fn plain_iso_9660_has_only_the_letters_of_its_standard() {
        let disc = Builder::new()
            .file("ovf-env.xml", "x")
            .iso9660(false)
            .build();
        let holds = |name: &[u8]| disc.windows(name.len()).any(|window| window == name);
        assert!(holds(b"OVF_ENV.XML;1"));
        assert!(!holds(b"ovf-env.xml"));
    }

    #[test]
    fn content_is_recorded_where_a_contiguous_reader_misses_it() {
        let content = noise(5 * SECTOR);
        let holds =
            |disc: &[u8], part: &[u8]| disc.windows(part.len()).any(|window| window == part);
        let disc = Builder::new().file("a", &content[..]);
        assert!(holds(&disc.build(), &content));
        let disc = disc.extent_sectors(2).build();
        assert!(!holds(&disc, &content));
        assert!(holds(&disc, &content[..2 * SECTOR]));
    }

    #[test]
    #[should_panic(expected = "too long for a label")]
    fn label_that_no_volume_holds_is_refused() {
        let _ = Builder::new().label(&"x".repeat(31)).build();
    }

    #[test]
    #[should_panic(expected = "is twice")]
    fn two_files_of_one_name_are_refused() {
        let _ = Builder::new().file("a", "1").file("a", "2");
    }
}
