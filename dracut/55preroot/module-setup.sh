#!/bin/bash
# dracut module of preroot: provisions a virtual machine on Azure before its root is started.
#
# For dracut 059 and later, dracut-ng too, with systemd in the initramfs and without. It needs none
# of dracut's network modules: preroot brings its own network and takes it away again.
#
# shellcheck disable=SC2154 # dracut sets the variables that are only read here.

# Tells dracut whether the module belongs into the image.
#
# Having the program is the wish to have it in the initramfs: at run time it finds out within a
# millisecond that a machine is not on Azure, so a generic image loses nothing.
check() {
    # File systems were asked for by name; this is none.
    [[ $mount_needs ]] && return 1

    # What runs after a crash saves memory, and must not provision. Fedora's kdump says so by
    # IN_KDUMP; others name their module.
    [[ $IN_KDUMP ]] && return 1
    [[ " $dracutmodules $add_dracutmodules $force_add_dracutmodules " == *" kdump"* ]] && return 1

    require_binaries /usr/bin/preroot || return 1
}

# Names the modules that this one needs.
depends() {
    echo base
}

# Puts the kernel modules of an Azure machine into the image.
installkernel() {
    # Images are built on other machines than they run on, so what this one has says nothing.
    # What the kernel has built in, or not at all, is passed over.
    #
    # NIC, disc and time of Hyper-V; discs behind NVMe, which newer sizes have for the root; the
    # provisioning disc behind SCSI (generation 2) and IDE (generation 1); raw frames. preroot reads
    # the disc without udf and isofs: they are for whoever looks at it from an emergency shell.
    hostonly='' instmods \
        hv_vmbus hv_netvsc hv_storvsc hv_utils \
        pci_hyperv nvme \
        sd_mod sr_mod cdrom ata_piix udf isofs \
        af_packet
}

# Puts the program and what calls it into the image.
install() {
    local unit want

    # It is static, so there are no libraries to look for.
    inst_simple /usr/bin/preroot
    if [[ -r ${dracutsysrootdir-}/etc/preroot.conf ]]; then
        inst_simple /etc/preroot.conf
    fi

    if ! dracut_module_included systemd; then
        inst_hook pre-trigger 60 "$moddir/preroot-prefetch.sh"
        # At 50 /usr is mounted; before that, what is laid over the root.
        inst_hook pre-pivot 60 "$moddir/preroot-provision.sh"
        # Behind those that say what is missing, so that the report has it.
        inst_hook emergency 99 "$moddir/preroot-failed.sh"
        return 0
    fi

    for unit in preroot-prefetch.service preroot.service preroot-failed.service; do
        inst_simple "$systemdsystemunitdir/$unit"
    done
    # A want of a unit that is not there is no error, and an image that does nothing would be built.
    if [[ ! -e $initdir$systemdsystemunitdir/preroot.service ]]; then
        dfatal "preroot: $systemdsystemunitdir/preroot.service is missing"
        exit 1
    fi
    # Not by systemctl: it refuses wants of units that later modules bring.
    for want in \
        initrd.target.wants/preroot-prefetch.service \
        initrd.target.wants/preroot.service \
        emergency.target.wants/preroot-failed.service \
        dracut-emergency.service.wants/preroot-failed.service; do
        mkdir -p "$initdir$systemdsystemunitdir/${want%/*}"
        ln_r "$systemdsystemunitdir/${want##*/}" "$systemdsystemunitdir/$want"
    done
}
