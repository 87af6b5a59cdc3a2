//! Writes the ISO 9660 half of a disc: ECMA-119, with Joliet and Rock Ridge names where asked for.
//!
//! One volume, no extended attributes, no interleaving. Joliet is the "Joliet Specification" of 1995;
//! of Rock Ridge (SUSP 1.10, RRIP 1.09) it writes names and modes. Section numbers are of ECMA-119
//! (2nd edition).

use super::image::{Extent, Fields, Image, SECTOR, sectors};
use super::{FIRST_DESCRIPTOR, Node};

/// Is how names are written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    pub(super) joliet: bool,
    pub(super) rock_ridge: bool,
    pub(super) relaxed: bool,
}

/// Is one of the two hierarchies of directories.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Tree {
    Primary,
    Joliet,
}

/// Is where each structure of the volume goes, before any of them is written.
pub(super) struct Plan {
    style: Style,
    trees: Vec<Places>,
    end: u32,
}

struct Places {
    tree: Tree,
    /// The directories in the order of the path table (6.9.1), the root first.
    order: Vec<usize>,
    /// The length of the path table, and where its two forms are.
    path_table: u32,
    little: u32,
    big: u32,
    /// The place of each directory, by node; a file's is not used.
    directories: Vec<Extent>,
}

/// Is one of the first two records of a directory, by what Rock Ridge wants in it.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Dot {
    OfRoot,
    Other,
}

/// Is what a directory record is made from.
struct Record<'a> {
    identifier: &'a [u8],
    extent: Extent,
    flags: u8,
    system_use: &'a [u8],
}

const DIRECTORY: u8 = 1 << 1;
/// Another record with a further extent of the same file follows (9.1.6).
const MORE_EXTENTS: u8 = 1 << 7;

impl Plan {
    /// Plans from this sector on, or else from right behind the descriptors.
    ///
    /// `parts` is the number of extents that each node's content will have.
    pub(super) fn new(style: Style, nodes: &[Node], parts: &[usize], start: Option<u32>) -> Self {
        let mut plan = Self {
            style,
            trees: Vec::new(),
            end: 0,
        };
        let mut next = start.unwrap_or_else(|| plan.descriptors_end());
        let trees: &[Tree] = if style.joliet {
            &[Tree::Primary, Tree::Joliet]
        } else {
            &[Tree::Primary]
        };
        for &tree in trees {
            let order = plan.path_table_order(nodes, tree);
            let path_table: usize = order
                .iter()
                .map(|&index| path_record(&plan.name(nodes, tree, index)).0.len())
                .sum();
            let (little, big) = (next, next + sectors(path_table));
            next = big + sectors(path_table);
            let nowhere = Extent {
                sector: 0,
                bytes: 0,
            };
            let mut places = Places {
                tree,
                path_table: path_table as u32,
                little,
                big,
                directories: vec![nowhere; nodes.len()],
                order: Vec::new(),
            };
            for &index in &order {
                // Only the length matters yet, and that depends on names and counts.
                let files: Vec<_> = parts.iter().map(|&count| vec![nowhere; count]).collect();
                let bytes = plan.directory(nodes, &places, index, &files).len() as u32;
                let extent = Extent {
                    sector: next,
                    bytes,
                };
                next += extent.sectors();
                places.directories[index] = extent;
            }
            places.order = order;
            plan.trees.push(places);
        }
        plan.end = next;
        plan
    }

    /// Gives the first sector behind the volume descriptors.
    pub(super) fn descriptors_end(&self) -> u32 {
        FIRST_DESCRIPTOR + 2 + u32::from(self.style.joliet)
    }

    /// Gives the first sector behind what is planned.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// Writes all but the content of files, on a disc that has so many sectors.
    pub(super) fn write(
        &self,
        image: &mut Image,
        label: &str,
        nodes: &[Node],
        files: &[Vec<Extent>],
        length: u32,
    ) {
        for (sector, places) in (FIRST_DESCRIPTOR..).zip(&self.trees) {
            write_descriptor(image, sector, label, places, length);
            self.write_path_tables(image, nodes, places);
            for &index in &places.order {
                let records = self.directory(nodes, places, index, files);
                image.write(places.directories[index].sector, &records);
            }
        }
        // 8.3.
        let mut terminator = Fields::new(SECTOR);
        terminator.u8(0, 255).bytes(1, b"CD001").u8(6, 1);
        image.write(self.descriptors_end() - 1, &terminator.0);
    }

    fn write_path_tables(&self, image: &mut Image, nodes: &[Node], places: &Places) {
        let (mut little, mut big) = (Vec::new(), Vec::new());
        for &index in &places.order {
            let parent = nodes[index].parent;
            let number = places.order.iter().position(|&other| other == parent);
            let number = 1 + number.expect("a parent is a directory") as u16;
            let sector = places.directories[index].sector;
            let mut entry = path_record(&self.name(nodes, places.tree, index));
            big.extend_from_slice(
                &entry
                    .bytes(2, &sector.to_be_bytes())
                    .bytes(6, &number.to_be_bytes())
                    .0,
            );
            little.extend_from_slice(&entry.u32(2, sector).u16(6, number).0);
        }
        image.write(places.little, &little);
        image.write(places.big, &big);
    }

    /// 6.8.1: the records of a directory, none of which crosses a sector's end.
    fn directory(
        &self,
        nodes: &[Node],
        places: &Places,
        index: usize,
        files: &[Vec<Extent>],
    ) -> Vec<u8> {
        let node = &nodes[index];
        let place = |index: usize| places.directories[index];
        let mut records = Vec::new();
        for (identifier, target) in [(0, index), (1, node.parent)] {
            let dot = if index == 0 && identifier == 0 {
                Dot::OfRoot
            } else {
                Dot::Other
            };
            let system_use = self.system_use(nodes, places.tree, target, Some(dot));
            records.push(record(&Record {
                identifier: &[identifier],
                extent: place(target),
                flags: DIRECTORY,
                system_use: &system_use,
            }));
        }
        for child in self.sorted(nodes, places.tree, &node.children) {
            let identifier = self.name(nodes, places.tree, child);
            let system_use = self.system_use(nodes, places.tree, child, None);
            let empty = [Extent {
                sector: 0,
                bytes: 0,
            }];
            let (extents, flags) = match &nodes[child].content {
                None => (&[place(child)][..], DIRECTORY),
                Some(_) if files[child].is_empty() => (&empty[..], 0),
                Some(_) => (&files[child][..], 0),
            };
            for (left, &extent) in (0..extents.len()).rev().zip(extents) {
                let flags = flags | if left > 0 { MORE_EXTENTS } else { 0 };
                let (identifier, system_use) = (&identifier[..], &system_use[..]);
                records.push(record(&Record {
                    identifier,
                    extent,
                    flags,
                    system_use,
                }));
            }
        }
        let mut bytes: Vec<u8> = Vec::new();
        for record in records {
            let left = bytes.len().next_multiple_of(SECTOR) - bytes.len();
            if left < record.len() {
                bytes.resize(bytes.len() + left, 0);
            }
            bytes.extend_from_slice(&record);
        }
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        bytes
    }

    /// The Rock Ridge entries of a record, which is one of the two dots or has a name.
    fn system_use(&self, nodes: &[Node], tree: Tree, index: usize, dot: Option<Dot>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.style.rock_ridge || tree == Tree::Joliet {
            return bytes;
        }
        let node = &nodes[index];
        if dot == Some(Dot::OfRoot) {
            // SUSP 5.3, once, in the first record of the root.
            bytes.extend_from_slice(b"SP\x07\x01\xbe\xef\0");
        }
        // RRIP 4.1.1: mode, links, owner, group.
        let mut mode = Fields::new(36);
        let bits = if node.is_directory() {
            0o040_555
        } else {
            0o100_444
        };
        mode.bytes(0, b"PX\x24\x01").both32(4, bits).both32(12, 1);
        bytes.extend_from_slice(&mode.0);
        match dot {
            None => {
                // RRIP 4.1.4.
                assert!(
                    node.name.len() <= 120,
                    "{} would want a continuation",
                    node.name
                );
                bytes.extend_from_slice(&[b'N', b'M', 5 + node.name.len() as u8, 1, 0]);
                bytes.extend_from_slice(node.name.as_bytes());
            }
            // SUSP 5.5: which extension this is, without the words about it.
            Some(Dot::OfRoot) => bytes.extend_from_slice(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A"),
            Some(Dot::Other) => {}
        }
        bytes
    }

    /// The identifier of a file or directory in a record or a path table.
    fn name(&self, nodes: &[Node], tree: Tree, index: usize) -> Vec<u8> {
        let node = &nodes[index];
        if index == 0 {
            return vec![0];
        }
        if tree == Tree::Joliet {
            let version = if node.is_directory() { "" } else { ";1" };
            assert!(
                node.name.encode_utf16().count() <= 64,
                "Joliet names have 64 letters at most"
            );
            return ucs2(&format!("{}{version}", node.name));
        }
        if self.style.relaxed {
            return node.name.as_bytes().to_vec();
        }
        // 7.5 and 7.6: capitals, digits and underscores, one dot in a file's name, none in others.
        let plain = |text: &str| -> String {
            let keep = |letter: char| {
                if letter.is_ascii_alphanumeric() {
                    letter
                } else {
                    '_'
                }
            };
            text.chars()
                .map(keep)
                .collect::<String>()
                .to_ascii_uppercase()
        };
        if node.is_directory() {
            return plain(&node.name).into_bytes();
        }
        let (stem, extension) = node.name.rsplit_once('.').unwrap_or((&node.name, ""));
        let name = format!("{}.{};1", plain(stem), plain(extension));
        assert!(name.len() <= 33, "{name} is longer than 7.5.1 allows");
        name.into_bytes()
    }

    /// 9.3: in the order of their names, the part behind the dot coming second.
    fn sorted(&self, nodes: &[Node], tree: Tree, children: &[usize]) -> Vec<usize> {
        let key = |index: usize| {
            let name = self.name(nodes, tree, index);
            let dot = name
                .iter()
                .position(|&byte| byte == b'.')
                .unwrap_or(name.len());
            (name[..dot].to_vec(), name[dot..].to_vec())
        };
        let mut sorted = children.to_vec();
        sorted.sort_by_cached_key(|&index| key(index));
        for pair in sorted.windows(2) {
            assert!(
                key(pair[0]) != key(pair[1]),
                "two files have one name in ISO 9660"
            );
        }
        sorted
    }

    /// 6.9.1: by level, then by the parent's place in the order, then by name.
    fn path_table_order(&self, nodes: &[Node], tree: Tree) -> Vec<usize> {
        let mut order = vec![0];
        let mut done = 0;
        while let Some(&index) = order.get(done) {
            let children = self.sorted(nodes, tree, &nodes[index].children);
            order.extend(
                children
                    .into_iter()
                    .filter(|&child| nodes[child].is_directory()),
            );
            done += 1;
        }
        order
    }
}

/// 8.4 and 8.5: the descriptor of the volume, or the supplementary one of Joliet.
fn write_descriptor(image: &mut Image, sector: u32, label: &str, places: &Places, length: u32) {
    let joliet = places.tree == Tree::Joliet;
    let pad: &[u8] = if joliet { &[0, b' '] } else { b" " };
    let text = |text: &str| {
        if joliet {
            ucs2(text)
        } else {
            text.as_bytes().to_vec()
        }
    };
    let mut label = text(label);
    // Joliet has room for half of it; the primary descriptor has the whole.
    label.truncate(32);
    let root = record(&Record {
        identifier: &[0],
        extent: places.directories[0],
        flags: DIRECTORY,
        system_use: &[],
    });
    let mut descriptor = Fields::new(SECTOR);
    descriptor
        .u8(0, if joliet { 2 } else { 1 })
        .bytes(1, b"CD001")
        .u8(6, 1)
        .padded(8, 32, &[], pad)
        // Lower case is not in 7.4.1, and everybody writes it: this label is matched by others.
        .padded(40, 32, &label, pad)
        .both32(80, length)
        .both16(120, 1)
        .both16(124, 1)
        .both16(128, SECTOR as u16)
        .both32(132, places.path_table)
        .u32(140, places.little)
        .bytes(148, &places.big.to_be_bytes())
        .bytes(156, &root)
        .padded(190, 128, &[], pad)
        .padded(318, 128, &[], pad)
        .padded(446, 128, &text("PREROOT LAB"), pad)
        .padded(574, 128, &[], pad)
        .padded(702, 37, &[], pad)
        .padded(739, 37, &[], pad)
        .padded(776, 37, &[], pad)
        .bytes(813, b"2024031409265300\0")
        .bytes(830, b"2024031409265300\0")
        .bytes(847, b"0000000000000000\0")
        .bytes(864, b"0000000000000000\0")
        .u8(881, 1);
    if joliet {
        // UCS-2 level 3.
        descriptor.bytes(88, b"%/E");
    }
    image.write(sector, &descriptor.0);
}

/// 9.1: a directory record.
fn record(from: &Record<'_>) -> Vec<u8> {
    let name_end = (33 + from.identifier.len()).next_multiple_of(2);
    let length = (name_end + from.system_use.len()).next_multiple_of(2);
    assert!(
        length <= 254,
        "a directory record has one byte for its length"
    );
    let mut record = Fields::new(length);
    record
        .u8(0, length as u8)
        .both32(2, from.extent.sector)
        .both32(10, from.extent.bytes)
        // 9.1.5: years since 1900, ..., quarters of an hour from Greenwich.
        .bytes(18, &[124, 3, 14, 9, 26, 53, 0])
        .u8(25, from.flags)
        .both16(28, 1)
        .u8(32, from.identifier.len() as u8)
        .bytes(33, from.identifier)
        .bytes(name_end, from.system_use);
    record.0
}

/// 9.4: a record of a path table, still without its numbers.
fn path_record(name: &[u8]) -> Fields {
    let mut record = Fields::new((8 + name.len()).next_multiple_of(2));
    record.u8(0, name.len() as u8).bytes(8, name);
    record
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}
