//! The machine as the emulator's command line has it.
//!
//! Nothing is run here, and no file is looked at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Cable;
use crate::arch::Arch;
use crate::fault::Fault;

/// The chassis tag by which a guest knows Azure.
const ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

/// The version by which systemd knows Hyper-V; Debian starts waagent nowhere else. It asks the processor
/// first, which therefore must not tell whose emulator it is.
const HYPER_V: &str = "Hyper-V UEFI Release v4.1";
const UNSIGNED: &str = "Nehalem,tcg-cpuid=off";

/// The machine to run.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its processor.
    pub arch: Arch,
    /// What it boots.
    pub start: Start,
    /// The medium in the CD-ROM drive; without one there is an empty drive.
    pub disc: Option<PathBuf>,
    /// The network card, as the emulator calls it.
    pub nic: String,
    /// The network card's address.
    pub mac: [u8; 6],
    /// The id of the VM, as the platform has it.
    pub vm_id: String,
    /// Processors.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory: u32,
    /// How long it may run.
    pub time_limit: Duration,
    /// Further arguments of the emulator.
    pub extra: Vec<String>,
}

/// What a machine boots.
#[derive(Debug, Clone)]
pub enum Start {
    /// A kernel that the emulator loads.
    Kernel {
        /// The kernel image.
        image: PathBuf,
        /// The initramfs.
        initramfs: PathBuf,
        /// The kernel's command line.
        append: String,
        /// The root disk, a raw image; it is written to.
        root_disk: PathBuf,
    },
    /// A disk by its own boot loader.
    Disk {
        /// The disk, a qcow2 image; it is written to.
        image: PathBuf,
        /// What it hangs on.
        bus: Bus,
        /// The program and the writable variables of UEFI; without them there is a BIOS.
        uefi: Option<(PathBuf, PathBuf)>,
    },
}

/// What the disk of a whole machine hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bus {
    /// A virtio block device.
    #[default]
    Virtio,
    /// A SCSI disk at a virtio controller.
    Scsi,
    /// A SATA disk at an AHCI controller.
    Sata,
}

impl Bus {
    /// Takes it by its name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "virtio" => Some(Self::Virtio),
            "scsi" => Some(Self::Scsi),
            "sata" => Some(Self::Sata),
            _ => None,
        }
    }

    /// Gives the devices, the last of which is the disk.
    fn devices(self) -> &'static [&'static str] {
        match self {
            Self::Virtio => &["virtio-blk-pci,drive=root,bootindex=0"],
            Self::Scsi => &["virtio-scsi-pci", "scsi-hd,drive=root,bootindex=0"],
            Self::Sata => &[
                "ich9-ahci,id=ahci",
                "ide-hd,bus=ahci.0,drive=root,bootindex=0",
            ],
        }
    }
}

/// What starts a whole machine's boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// A BIOS: a VM of the first generation.
    Bios,
    /// UEFI: a VM of the second generation.
    Uefi,
}

impl Firmware {
    /// Takes it by its name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "bios" => Some(Self::Bios),
            "uefi" => Some(Self::Uefi),
            _ => None,
        }
    }

    /// Gives the name that people have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
        }
    }
}

/// The network card that every Linux in a virtual machine has a driver for.
pub const VIRTIO: &str = "virtio-net-pci";

/// The drive of a VM of the second generation. Linux sees nothing on a PC's IDE drive after UEFI, either.
const SCSI_DRIVE: [&str; 4] = [
    "-device",
    "virtio-scsi-pci,id=optical",
    "-device",
    "scsi-cd,bus=optical.0,drive=cd0",
];

/// Builds the emulator's arguments.
pub(super) fn arguments(machine: &Machine, cable: &Cable) -> Result<Vec<String>, Fault> {
    let traits = machine.arch.traits();
    let mut all: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(|&word| word.to_owned()));
    add(&["-name", "preroot-lab", "-nodefaults", "-no-user-config"]);
    add(&["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    // Never KVM: it can be there and yet not work, and results shall not depend on it.
    add(&["-accel", "tcg"]);
    add(traits.machine);
    add(&[
        "-smp",
        &machine.cpus.to_string(),
        "-m",
        &machine.memory.to_string(),
    ]);
    match &machine.start {
        Start::Kernel {
            image,
            initramfs,
            append,
            root_disk,
        } => {
            // A kernel that gives up must not be started anew.
            add(&["-no-reboot"]);
            add(&["-kernel", &name(image)?, "-initrd", &name(initramfs)?]);
            add(&["-append", append]);
            add(&["-drive", &drive("raw", root_disk)?]);
            add(&["-device", "virtio-blk-pci,drive=root"]);
        }
        Start::Disk { image, bus, uefi } => {
            add(&["-cpu", UNSIGNED]);
            // Without graphics the firmware and the boot loader speak on the serial console.
            add(&["-machine", "graphics=off"]);
            if let Some((program, variables)) = uefi {
                let flash = |unit, more, file: &Path| {
                    let file = value(file)?;
                    Ok(format!(
                        "if=pflash,unit={unit},format=raw{more},file={file}"
                    ))
                };
                add(&["-drive", &flash(0, ",readonly=on", program)?]);
                add(&["-drive", &flash(1, "", variables)?]);
            }
            add(&["-drive", &drive("qcow2", image)?]);
            for device in bus.devices() {
                add(&["-device", device]);
            }
        }
    }
    let disc = match &machine.disc {
        Some(file) => format!(",format=raw,file={}", value(file)?),
        None => String::new(),
    };
    add(&[
        "-drive",
        &format!("if=none,id=cd0,media=cdrom,readonly=on{disc}"),
    ]);
    match &machine.start {
        Start::Disk { uefi: Some(_), .. } => add(&SCSI_DRIVE),
        _ => add(traits.optical),
    }
    let tag = format!("type=3,manufacturer=Microsoft Corporation,asset={ASSET_TAG}");
    let id = match &machine.start {
        Start::Disk { uefi: Some(_), .. } => machine.vm_id.clone(),
        _ => first_generation(&machine.vm_id),
    };
    let version = match &machine.start {
        Start::Kernel { .. } => String::new(),
        Start::Disk { .. } => format!(",version={HYPER_V}"),
    };
    let system = format!(
        "type=1,manufacturer=Microsoft Corporation,product=Virtual Machine{version},uuid={id}"
    );
    add(&["-smbios", &tag, "-smbios", &system]);
    let net = format!(
        "dgram,id=net,local.type=unix,local.path={},remote.type=unix,remote.path={}",
        value(&cable.machine())?,
        value(&cable.directory.join("lab"))?,
    );
    let mac = machine.mac.map(|byte| format!("{byte:02x}")).join(":");
    // No boot from the network, so no firmware for it either.
    let card = format!("{},netdev=net,romfile=,mac={mac}", machine.nic);
    add(&["-netdev", &net, "-device", &card]);
    if let Start::Disk { .. } = machine.start {
        // Azure's host gives it, too. Last, so that the card is called as in the lab's other machines.
        add(&["-device", "virtio-rng-pci"]);
    }
    all.extend(machine.extra.iter().cloned());
    Ok(all)
}

/// Writes a VM's id as a machine without EFI shows it: the bytes of the first three parts swapped.
///
/// A VM of the first generation has a firmware that is older than the rule on their order.
fn first_generation(id: &str) -> String {
    let swap = |part: &str| {
        let bytes = part.as_bytes().rchunks(2);
        bytes.map(String::from_utf8_lossy).collect::<String>()
    };
    let part = |(index, part): (usize, &str)| {
        if index < 3 {
            swap(part)
        } else {
            part.to_owned()
        }
    };
    id.split('-')
        .enumerate()
        .map(part)
        .collect::<Vec<_>>()
        .join("-")
}

/// Gives a file's name as an argument of its own.
fn name(path: &Path) -> Result<String, Fault> {
    let text = path.to_str().ok_or_else(|| Fault::Content {
        path: path.to_owned(),
        why: "the name is not UTF-8".to_owned(),
    })?;
    Ok(text.to_owned())
}

/// Gives a file's name as a value in a list that commas separate.
fn value(path: &Path) -> Result<String, Fault> {
    Ok(name(path)?.replace(',', ",,"))
}

/// Gives the disk's drive.
fn drive(format: &str, file: &Path) -> Result<String, Fault> {
    // A flush on the guest's side is not waited for: a machine that is ended has written what it
    // has written all the same, and only the host's own fall could take that away.
    let file = value(file)?;
    Ok(format!(
        "if=none,id=root,format={format},cache=unsafe,file={file}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            arch: Arch::X86_64,
            start: Start::Kernel {
                image: "/k".into(),
                initramfs: "/i".into(),
                append: "root=LABEL=a b".into(),
                root_disk: "/with,comma".into(),
            },
            nic: VIRTIO.into(),
            disc: None,
            mac: [0, 0x0d, 0x3a, 1, 2, 0xff],
            vm_id: "00000000-0000-0000-0000-000000000001".into(),
            cpus: 1,
            memory: 512,
            time_limit: Duration::from_secs(1),
            extra: vec!["-s".into()],
        }
    }

    #[test]
    fn command_line_carries_azures_tag_and_the_address() {
        let cable = Cable::lay().unwrap();
        let line = arguments(&machine(), &cable).unwrap().join(" ");
        assert!(
            line.contains("asset=7783-7084-3265-9085-8269-3286-77"),
            "{line}"
        );
        assert!(line.contains("mac=00:0d:3a:01:02:ff"), "{line}");
        assert!(line.ends_with("-s"), "{line}");
    }

    #[test]
    fn id_of_a_first_generation_machine_is_swapped_in_its_first_three_parts() {
        assert_eq!(
            first_generation("01234567-89ab-cdef-0123-456789abcdef"),
            "67452301-ab89-efcd-0123-456789abcdef"
        );
    }

    #[test]
    fn comma_in_a_file_name_does_not_end_it() {
        let cable = Cable::lay().unwrap();
        let line = arguments(&machine(), &cable).unwrap().join(" ");
        assert!(line.contains("file=/with,,comma"), "{line}");
    }

    #[test]
    fn whole_disk_boots_by_its_own_loader_and_may_restart() {
        let cable = Cable::lay().unwrap();
        let mut machine = machine();
        machine.start = Start::Disk {
            image: "/d".into(),
            bus: Bus::Sata,
            uefi: None,
        };
        machine.nic = "e1000".into();
        let line = arguments(&machine, &cable).unwrap().join(" ");
        for absent in ["-kernel", "-no-reboot", "pflash", "virtio-blk"] {
            assert!(!line.contains(absent), "{line}");
        }
        for present in [
            "ide-hd,bus=ahci.0,drive=root",
            "e1000,netdev=net",
            "version=Hyper-V UEFI",
            "tcg-cpuid=off",
        ] {
            assert!(line.contains(present), "{line}");
        }
        assert!(line.contains("uuid=00000000-0000-0000-0000-000000000001"));
    }

    #[test]
    fn vm_of_the_second_generation_shows_its_id_as_it_is() {
        let cable = Cable::lay().unwrap();
        let mut machine = machine();
        machine.vm_id = "01234567-89ab-cdef-0123-456789abcdef".into();
        machine.start = Start::Disk {
            image: "/d".into(),
            bus: Bus::Virtio,
            uefi: Some(("/code".into(), "/vars".into())),
        };
        let line = arguments(&machine, &cable).unwrap().join(" ");
        assert!(line.contains("uuid=01234567-89ab-cdef-0123-456789abcdef"));
        assert!(
            line.contains("unit=0,format=raw,readonly=on,file=/code"),
            "{line}"
        );
        assert!(line.contains("unit=1,format=raw,file=/vars"), "{line}");
        assert!(line.contains("scsi-cd,bus=optical.0,drive=cd0"), "{line}");
        assert!(!line.contains("ide-cd"), "{line}");
    }

    #[test]
    fn no_machine_has_a_network_of_the_host() {
        let cable = Cable::lay().unwrap();
        let line = arguments(&machine(), &cable).unwrap().join(" ");
        assert_eq!(line.matches("-netdev").count(), 1, "{line}");
        assert!(line.contains("-netdev dgram,"), "{line}");
        assert!(!line.contains("-netdev user"), "{line}");
    }
}
