//! The two machines that the lab can play, as data.
//!
//! Everything that differs between them is a line of a table here; no other file asks which it is.

/// The processor of the machine that boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// A PC with an IDE CD-ROM drive, as an Azure VM of generation 1.
    X86_64,
    /// QEMU's `virt` machine with a SCSI CD-ROM drive, as a VM of generation 2.
    Aarch64,
}

/// What the rest of the lab must know about a machine.
#[derive(Debug)]
pub struct Traits {
    /// The name that people, QEMU and Rust use.
    pub name: &'static str,
    /// Debian's name.
    pub debian: &'static str,
    /// The multiarch directory of its libraries.
    pub multiarch: &'static str,
    /// The program loader of the C library.
    pub loader: &'static str,
    /// The Rust target of the product.
    pub target: &'static str,
    /// The emulator of the whole machine.
    pub system: &'static str,
    /// The emulator of one program.
    pub user: &'static str,
    /// The machine and the processor, as arguments of the emulator.
    pub machine: &'static [&'static str],
    /// The CD-ROM drive, as arguments of the emulator; the medium's drive is `cd0`.
    pub optical: &'static [&'static str],
    /// The kernel's name of the serial console.
    pub console: &'static str,
    /// Kernel arguments that this machine needs.
    pub append: &'static [&'static str],
    /// Whether the guest sees DMI tables.
    pub dmi: bool,
}

static X86_64: Traits = Traits {
    name: "x86_64",
    debian: "amd64",
    multiarch: "x86_64-linux-gnu",
    loader: "ld-linux-x86-64.so.2",
    target: "x86_64-unknown-linux-musl",
    system: "qemu-system-x86_64",
    user: "qemu-x86_64-static",
    // Debian's cloud kernel has no AHCI: the drive must be the old IDE one. Nehalem is the oldest
    // processor without a feature that emulation makes slow.
    machine: &["-machine", "pc", "-cpu", "Nehalem"],
    optical: &["-device", "ide-cd,drive=cd0"],
    console: "ttyS0",
    append: &["mitigations=off"],
    dmi: true,
};

static AARCH64: Traits = Traits {
    name: "aarch64",
    debian: "arm64",
    multiarch: "aarch64-linux-gnu",
    loader: "ld-linux-aarch64.so.1",
    target: "aarch64-unknown-linux-musl",
    system: "qemu-system-aarch64",
    user: "qemu-aarch64-static",
    machine: &["-machine", "virt", "-cpu", "cortex-a57"],
    optical: &["-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=cd0"],
    console: "ttyAMA0",
    append: &[],
    // It would with UEFI, whose firmware takes longer than the whole boot.
    dmi: false,
};

impl Arch {
    /// Takes the processor by any of its usual names.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "x86_64" | "amd64" => Some(Self::X86_64),
            "aarch64" | "arm64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// Says what the lab runs on, if it is one of the two.
    pub fn host() -> Option<Self> {
        Self::parse(std::env::consts::ARCH)
    }

    /// Looks up what this machine needs.
    pub fn traits(self) -> &'static Traits {
        match self {
            Self::X86_64 => &X86_64,
            Self::Aarch64 => &AARCH64,
        }
    }
}
