//! Writes the platform's disc: the DVD that brings `ovf-env.xml` to a new VM.
//!
//! UDF 1.02, 1.50 and 2.01, ISO 9660 with or without Joliet and Rock Ridge, or both over the same
//! file data. It writes finished read-only volumes and reads nothing. Written from ECMA-167,
//! the OSTA UDF documents and ECMA-119, and from no reader's code, so that a reader that agrees
//! with it agrees with the documents. What the documents leave open, options choose: how files are
//! cut into extents, how extents are described, what is stored inside its own entry.

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
