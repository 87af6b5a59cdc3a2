//! The boot loader of a disk: GRUB, put there as its own installer would.
//!
//! Written from GRUB's sources (`boot.S`, `diskboot.S`, `setup.c`) and, for UEFI, from its specification,
//! section 3.5.1.1. The installer itself needs the disk as a device, and root.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::Firmware;
use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::{Lab, Tool};
use crate::gpt::{self, BOOT_CODE, Partition, SECTOR};
use crate::progress;

/// The id of the disk.
const DISK: &str = "5d1c0f0e-7f43-4d0b-9a35-0c0ffeed15cf";

/// What GRUB must have in it to read the root.
const MODULES: [&str; 9] = [
    "boot",
    "echo",
    "ext2",
    "linux",
    "normal",
    "part_gpt",
    "reboot",
    "search_fs_uuid",
    "test",
];

/// And on a PC with a BIOS, which has no console for it either.
const BIOS_MODULES: [&str; 4] = ["biosdisk", "linux16", "serial", "terminal"];

/// Where the first sector has the place of the second part (`GRUB_BOOT_MACHINE_KERNEL_SECTOR`).
const KERNEL_SECTOR: usize = 0x5c;

/// Where the second part has the list of the places of what follows it: first sector, count, segment.
const BLOCK_LIST: usize = SECTOR as usize - 12;

/// Where the firmware of a machine without settings looks, as the tools name it.
const PROGRAM: &str = "::EFI/BOOT/BOOTX64.EFI";

/// What a BIOS and GRUB read of the disk's first sectors.
struct Bios {
    /// The code of the first sector.
    boot: Vec<u8>,
    /// What the first sector loads.
    core: Vec<u8>,
}

/// GRUB for a firmware, and what it is put onto a disk with.
pub(super) struct Loader {
    firmware: Firmware,
    modules: PathBuf,
    mkimage: Tool,
    /// For the file system of UEFI.
    fat: Option<[Tool; 3]>,
}

impl Loader {
    /// Fetches it.
    pub(super) fn fetch(lab: &Lab, firmware: Firmware) -> Result<Self, Fault> {
        let fat = match firmware {
            Firmware::Bios => None,
            Firmware::Uefi => {
                let fat = [lab.tool("mkfs.vfat")?, lab.tool("mmd")?, lab.tool("mcopy")?];
                Some(fat)
            }
        };
        Ok(Self {
            firmware,
            modules: lab.grub_modules(platform(firmware))?,
            mkimage: lab.tool("grub-mkimage")?,
            fat,
        })
    }

    /// Writes the partition table and GRUB, which finds its configuration on the root of this UUID.
    pub(super) fn install(
        &self,
        disk: &File,
        path: &Path,
        sectors: u64,
        partitions: &[Partition; 2],
        root: &str,
    ) -> Result<(), Fault> {
        let mut tables = gpt::tables(DISK, sectors, partitions);
        let [boot, _] = partitions;
        let content = match self.firmware {
            Firmware::Bios => {
                let bios = self.bios(path, boot.first, root)?;
                tables.head[..BOOT_CODE].copy_from_slice(&bios.boot);
                bios.core
            }
            Firmware::Uefi => self.system_partition(path, boot.sectors * SECTOR, root)?,
        };
        let write = |bytes: &[u8], at| disk.write_all_at(bytes, at * SECTOR);
        let first_behind = sectors - gpt::BEHIND;
        write(&tables.head, 0)
            .and_then(|()| write(&content, boot.first))
            .and_then(|()| write(&tables.tail, first_behind))
            .map_err(Fault::file("write", path))
    }

    /// Has GRUB's own tool link it together, beside the disk.
    fn linked(&self, disk: &Path, root: &str) -> Result<PathBuf, Fault> {
        let mut modules = match self.firmware {
            Firmware::Bios => BIOS_MODULES.to_vec(),
            Firmware::Uefi => Vec::new(),
        };
        modules.extend(MODULES);
        let mut text = format!("search.fs_uuid {root} root\nset prefix=($root)/boot/grub\n");
        if self.firmware == Firmware::Bios {
            text.insert_str(
                0,
                "serial --unit=0 --speed=115200\nterminal_output serial\n",
            );
        }
        let (early, linked) = (disk.with_extension("cfg"), disk.with_extension("grub"));
        fs::write(&early, text).map_err(Fault::file("write", &early))?;
        let mut command = self.mkimage.command();
        command.args([
            "--format",
            platform(self.firmware),
            "--prefix",
            "/boot/grub",
        ]);
        command.arg("--directory").arg(&self.modules);
        command.arg("--config").arg(&early);
        command.arg("--output").arg(&linked).args(modules);
        progress::run(&mut command)?;
        Ok(linked)
    }

    /// Makes what a BIOS starts: the first sector, and what it loads from a place on the disk.
    fn bios(&self, disk: &Path, at: u64, root: &str) -> Result<Bios, Fault> {
        let linked = self.linked(disk, root)?;
        let read = |path: &Path| fs::read(path).map_err(Fault::file("read", path));
        let first = self.modules.join("boot.img");
        placed(&read(&first)?, &read(&linked)?, at).ok_or_else(|| Fault::Content {
            path: linked,
            why: "this is no GRUB for a BIOS".to_owned(),
        })
    }

    /// Makes UEFI's system partition with GRUB where the firmware of a machine without settings looks.
    fn system_partition(&self, disk: &Path, size: u64, root: &str) -> Result<Vec<u8>, Fault> {
        let linked = self.linked(disk, root)?;
        let part = disk.with_extension("esp");
        let file = File::create(&part).map_err(Fault::file("create", &part))?;
        file.set_len(size).map_err(Fault::file("create", &part))?;
        if let Some([mkfs, mmd, mcopy]) = &self.fat {
            let label = ["-n", "ESP", "-i", "0c0ffee0"];
            progress::run(mkfs.command().args(label).arg(&part))?;
            let mut make = mmd.command();
            make.arg("-i").arg(&part).args(["::EFI", "::EFI/BOOT"]);
            progress::run(&mut make)?;
            let mut copy = mcopy.command();
            copy.arg("-i").arg(&part).arg(&linked).arg(PROGRAM);
            progress::run(&mut copy)?;
        }
        fs::read(&part).map_err(Fault::file("read", &part))
    }
}

/// Gives the name that GRUB has for it.
fn platform(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::Bios => "i386-pc",
        Firmware::Uefi => "x86_64-efi",
    }
}

/// Writes GRUB's configuration, which waits for nobody.
pub(super) fn menu(firmware: Firmware, release: &str, root: &str, more: &[&str]) -> String {
    // On a PC the usual command has all that the kernel takes for itself, most of it empty, moved byte
    // by byte, with which an emulated machine is busy for seconds.
    let old = match firmware {
        Firmware::Bios => "16",
        Firmware::Uefi => "",
    };
    let mut append = vec![format!("root=UUID={root}"), "ro".to_owned()];
    let traits = Arch::X86_64.traits();
    append.push(format!("console={}", traits.console));
    append.extend(
        traits
            .append
            .iter()
            .chain(more)
            .map(|&word| word.to_owned()),
    );
    format!(
        "set timeout=0\n\
         menuentry \"Debian\" {{\n\
         \techo \"Loading Linux {release} ...\"\n\
         \tlinux{old} /boot/vmlinuz-{release} {}\n\
         \tinitrd{old} /boot/initrd.img-{release}\n\
         }}\n",
        append.join(" ")
    )
}

/// Tells each of GRUB's parts where the next one is; `None` if they are not such parts.
fn placed(boot: &[u8], core: &[u8], at: u64) -> Option<Bios> {
    let (mut boot, mut core) = (boot.get(..BOOT_CODE)?.to_vec(), core.to_vec());
    boot.get_mut(KERNEL_SECTOR..)?
        .first_chunk_mut()
        .map(|place| *place = at.to_le_bytes())?;
    // How many sectors there are is filled in by who linked it.
    let rest = core.len().div_ceil(SECTOR as usize).checked_sub(1)?;
    let list = core.get_mut(BLOCK_LIST..SECTOR as usize)?;
    if list.get(8..10)? != u16::try_from(rest).ok()?.to_le_bytes() {
        return None;
    }
    list.first_chunk_mut()
        .map(|place| *place = (at + 1).to_le_bytes())?;
    Some(Bios { boot, core })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x0807_0605_0403_0201;

    /// Two parts of GRUB as its own tool leaves them: the second with so many bytes.
    fn parts(length: usize) -> (Vec<u8>, Vec<u8>) {
        let mut core = vec![0xcc; length];
        let rest = (length - 1) / 512;
        core[500..512].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, rest as u8, 0, 0x20, 8]);
        (vec![0x90; 512], core)
    }

    #[test]
    fn first_sector_names_the_second_part_and_that_what_follows_it() {
        let (boot, core) = parts(1025);
        let bios = placed(&boot, &core, AT).unwrap();
        // GRUB's boot.h: GRUB_BOOT_MACHINE_KERNEL_SECTOR.
        assert_eq!(bios.boot[0x5c..0x64], [1, 2, 3, 4, 5, 6, 7, 8]);
        // Eight bytes of place, two of count, two of segment, at the end of the sector.
        assert_eq!(bios.core[500..512], [2, 2, 3, 4, 5, 6, 7, 8, 2, 0, 0x20, 8]);
        assert_eq!(bios.core[512..], core[512..]);
        assert_eq!(bios.core[..500], core[..500]);
        let kept = [&bios.boot[..0x5c], &bios.boot[0x64..]].concat();
        assert_eq!(kept, boot[..440 - 8]);
    }

    #[test]
    fn table_of_old_is_not_written_over_by_the_first_sector() {
        let (boot, core) = parts(512);
        assert_eq!(placed(&boot, &core, AT).unwrap().boot.len(), 440);
    }

    #[test]
    fn something_else_is_not_taken_for_grub() {
        let (boot, core) = parts(1024);
        assert!(placed(&boot, &core, AT).is_some());
        assert!(placed(&boot[..100], &core, AT).is_none());
        assert!(placed(&boot, &core[..512], AT).is_none(), "it was cut");
        assert!(placed(&boot, &[], AT).is_none());
        assert!(placed(&boot, &[0; 2048], AT).is_none());
    }

    #[test]
    fn kernel_is_told_its_root_and_its_console() {
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            let menu = menu(firmware, "6.1", "0-1", &["last"]);
            for words in [
                " /boot/vmlinuz-6.1 root=UUID=0-1 ro ",
                " console=ttyS0 ",
                " last\n",
                "timeout=0",
            ] {
                assert!(menu.contains(words), "{menu}");
            }
        }
    }
}
