//! The hooks of the three generators, run without the generators.
//!
//! What builds an image runs in bash, or in busybox's ash, with the documented functions of its
//! generator and nothing else (`data/hooks/`); what runs in the image runs in busybox's ash, below a
//! root of its own in which a stand-in writes down how preroot was called. That the real generators
//! take them is shown by whole boots, and by the mkinitcpio of this system where it has one.

mod build;
mod initramfs;
mod running;
mod units;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lab::fetch::Lab;
use lab::install::{self, Generator};

/// What all images get of a kernel that has everything as a module.
const MODULES: [&str; 14] = [
    "af_packet",
    "ata_piix",
    "cdrom",
    "hv_netvsc",
    "hv_storvsc",
    "hv_utils",
    "hv_vmbus",
    "isofs",
    "nvme",
    "pci_hyperv",
    "sd_mod",
    "sr_mod",
    "udf",
    // Nobody asks for it.
    "zram",
];

/// A directory that goes away with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lab-hooks-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Makes a system in which the product is installed, with the stand-in as its program.
    fn system(&self, lab: &Lab, settings: bool) -> PathBuf {
        let root = self.0.join("system");
        install::lay(lab.project(), &stand_in(lab), &Generator::ALL, &root, false).unwrap();
        // What the units require is systemd's.
        for unit in ["initrd-root-fs.target", "initrd-fs.target"] {
            fs::write(root.join("usr/lib/systemd/system").join(unit), "[Unit]\n").unwrap();
        }
        if settings {
            fs::create_dir(root.join("etc")).unwrap();
            fs::write(root.join("etc/preroot.conf"), "timeout = 900\n").unwrap();
        }
        root
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Names a file of `data/hooks`.
fn data(lab: &Lab, name: &str) -> PathBuf {
    lab.project().join("tests/lab/data/hooks").join(name)
}

fn stand_in(lab: &Lab) -> PathBuf {
    data(lab, "program.sh")
}

/// Lists the names in a directory; none if it is not there.
fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The modules that an image should have of these.
fn expected_modules(kernel: &[&str]) -> BTreeSet<String> {
    kernel
        .iter()
        .filter(|&&name| name != "zram")
        .map(|&name| name.to_owned())
        .collect()
}
