//! What the lab may ask for, and the packages that have it, by the families of distributions.

/// A program and the package that has it: Debian's and Ubuntu's, Fedora's, Arch's, Alpine's.
pub(super) struct Source {
    pub(super) program: &'static str,
    pub(super) deb: &'static str,
    pub(super) rpm: &'static str,
    pub(super) arch: &'static str,
    pub(super) apk: &'static str,
}

/// Makes a row of [`SOURCES`].
const fn source(program: &'static str, [deb, rpm, arch, apk]: [&'static str; 4]) -> Source {
    Source {
        program,
        deb,
        rpm,
        arch,
        apk,
    }
}

/// Every program that the lab may ask for.
pub(super) static SOURCES: &[Source] = &[
    source(
        "qemu-system-x86_64",
        [
            "qemu-system-x86",
            "qemu-system-x86-core",
            "qemu-system-x86",
            "qemu-system-x86_64",
        ],
    ),
    source(
        "qemu-system-aarch64",
        [
            "qemu-system-arm",
            "qemu-system-aarch64-core",
            "qemu-system-aarch64",
            "qemu-system-aarch64",
        ],
    ),
    source(
        "qemu-aarch64-static",
        [
            "qemu-user-static",
            "qemu-user-static-aarch64",
            "qemu-user-static",
            "qemu-aarch64",
        ],
    ),
    source(
        "qemu-x86_64-static",
        [
            "qemu-user-static",
            "qemu-user-static-x86",
            "qemu-user-static",
            "qemu-x86_64",
        ],
    ),
    source("mke2fs", ["e2fsprogs"; 4]),
    source(
        "debugfs",
        ["e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs-extra"],
    ),
    source("e2fsck", ["e2fsprogs"; 4]),
    source(
        "qemu-img",
        ["qemu-utils", "qemu-img", "qemu-img", "qemu-img"],
    ),
    source("depmod", ["kmod"; 4]),
    source(
        "genisoimage",
        ["genisoimage", "genisoimage", "cdrtools", "cdrkit"],
    ),
    source("mkudffs", ["udftools"; 4]),
    source("dnsmasq", ["dnsmasq-base", "dnsmasq", "dnsmasq", "dnsmasq"]),
    source("kea-dhcp4", ["kea-dhcp4-server", "kea", "kea", "kea-dhcp4"]),
    source(
        "dhcpd",
        [
            "isc-dhcp-server",
            "dhcp-server",
            "dhcp",
            "dhcp-server-vanilla",
        ],
    ),
    source("dhcpcd", ["dhcpcd-base", "dhcpcd", "dhcpcd", "dhcpcd"]),
    source(
        "ssh-keygen",
        ["openssh-client", "openssh", "openssh", "openssh-keygen"],
    ),
    source(
        "sshd",
        [
            "openssh-server",
            "openssh-server",
            "openssh",
            "openssh-server",
        ],
    ),
    source(
        "busybox",
        ["busybox-static", "busybox", "busybox", "busybox-static"],
    ),
    source("bash", ["bash"; 4]),
    source("xz", ["xz-utils", "xz", "xz", "xz"]),
    source("zstd", ["zstd"; 4]),
    source("ip", ["iproute2", "iproute", "iproute2", "iproute2"]),
    source(
        "unshare",
        ["util-linux", "util-linux", "util-linux", "util-linux-misc"],
    ),
    source(
        "nsenter",
        ["util-linux", "util-linux", "util-linux", "util-linux-misc"],
    ),
    source(
        "ssh",
        [
            "openssh-client",
            "openssh-clients",
            "openssh",
            "openssh-client-default",
        ],
    ),
    source(
        "ping",
        ["iputils-ping", "iputils", "iputils", "iputils-ping"],
    ),
    source("mount", ["mount", "util-linux", "util-linux", "mount"]),
    source(
        "blkid",
        ["util-linux", "util-linux", "util-linux", "util-linux-misc"],
    ),
    source("udfinfo", ["udftools"; 4]),
    source(
        "isoinfo",
        ["genisoimage", "genisoimage", "cdrtools", "cdrkit"],
    ),
    source("cpio", ["cpio"; 4]),
    source(
        "bsdcpio",
        [
            "libarchive-tools",
            "bsdcpio",
            "libarchive",
            "libarchive-tools",
        ],
    ),
    source("dpkg-deb", ["dpkg"; 4]),
    source("md5sum", ["coreutils"; 4]),
    source("gzip", ["gzip"; 4]),
    source("openssl", ["openssl"; 4]),
    source("file", ["file"; 4]),
    source("mandoc", ["mandoc"; 4]),
    source("zsh", ["zsh"; 4]),
    source("fish", ["fish"; 4]),
    source(
        "grub-mkimage",
        ["grub-common", "grub2-tools", "grub", "grub"],
    ),
    source("mkfs.vfat", ["dosfstools"; 4]),
    source("mmd", ["mtools"; 4]),
    source("mcopy", ["mtools"; 4]),
    source("sfdisk", ["fdisk", "util-linux", "util-linux", "sfdisk"]),
    source("readelf", ["binutils"; 4]),
    source(
        "shellcheck",
        ["shellcheck", "ShellCheck", "shellcheck", "shellcheck"],
    ),
];

/// UEFI for a PC, which is no program of ours but one of the machine's.
pub(super) static UEFI_SOURCE: Source = source("OVMF", ["ovmf", "edk2-ovmf", "edk2-ovmf", "ovmf"]);

/// The program and the variables, without Secure Boot, where Debian, Fedora and Arch have them.
pub(super) const UEFI: [(&str, &str); 4] = [
    (
        "usr/share/OVMF/OVMF_CODE_4M.fd",
        "usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
    (
        "usr/share/edk2/ovmf/OVMF_CODE.fd",
        "usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
];

/// GRUB by its platform: what a boot loader is linked from.
pub(super) static GRUB: &[Source] = &[
    source(
        "i386-pc",
        ["grub-pc-bin", "grub2-pc-modules", "grub", "grub-bios"],
    ),
    source(
        "x86_64-efi",
        [
            "grub-efi-amd64-bin",
            "grub2-efi-x64-modules",
            "grub",
            "grub-efi",
        ],
    ),
];
