#!/bin/sh
# Lets the generators of a Debian make its initramfs, each its own; fills a disk with that Debian, and
# one more with a file system that cannot be written to.
#
# ARCHIVE ADDITIONS KERNEL RELEASE INTO UUID SIZE; run as root in mount and pid namespaces of its own.
# KERNEL is a tree with boot/ and lib/modules/; what the generators say stays in INTO as NAME.log.
set -eu
archive=$1 additions=$2 kernel=$3 release=$4 into=$5 uuid=$6 size=$7
export LC_ALL=C
export PATH="$PATH:/usr/sbin:/sbin"

top=$into/tree
mkdir "$top"
mount -t tmpfs -o mode=755,size=2G lab "$top"
cd "$top"
tar --numeric-owner -xpf "$archive"
cp -R "$additions/." .
# Who makes this type of key anew keeps an emulated machine busy for half a minute.
rm etc/ssh/ssh_host_rsa_key*
mount -t tmpfs lab dev
for node in null zero full random urandom tty; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mount --rbind /proc proc
mount -t tmpfs lab tmp
mkdir -p run/lab "usr/lib/modules/$release"
mount --bind "$kernel/lib/modules/$release" "usr/lib/modules/$release"
mount --bind "$kernel/boot" boot
mount -t tmpfs lab run/lab

# What an emulated machine would unpack or go through for nothing. Its network card is no Hyper-V one.
omit='network network-legacy ifcfg crypt dm dmraid lvm mdraid multipath nfs nbd iscsi fcoe cifs drm
plymouth i18n fips resume btrfs bluetooth pcsc tpm2-tss'
dracut() {
    name=$1
    shift
    chroot . /usr/bin/dracut --force --no-hostonly --no-hostonly-cmdline --no-early-microcode --no-compress \
        --add-drivers virtio_net --kver "$release" "$@" "/run/lab/$name" >"$into/$name.log" 2>&1 ||
        { cat "$into/$name.log"; return 1; }
}
initramfs_tools() {
    chroot . /usr/sbin/mkinitramfs -c zstd -l 1 -o "/run/lab/$1" "$release" >"$into/$1.log" 2>&1 ||
        { cat "$into/$1.log"; return 1; }
}
dracut dracut-systemd --add dracut-systemd --omit "$omit" &
systemd=$!
initramfs_tools initramfs-tools
dracut dracut --omit "$omit systemd systemd-initrd dracut-systemd"
wait $systemd
mv run/lab/* "$into/"

umount run/lab boot "usr/lib/modules/$release" tmp
umount -l proc
umount -R dev
rm -rf run/* "usr/lib/modules/$release" var/tmp/*
mke2fs -q -t ext4 -L lab-distro -U "$uuid" -I 256 -b 4096 -m 0 \
    -E "root_owner=0:0,hash_seed=$uuid" -d . "$into/disk" "$size"

# Its builder lets the initramfs lay something over it, and has nothing to say about how it is mounted.
: >etc/fstab
mkdir run/lab
mount --bind "$into" run/lab
# An emulated machine unpacks slowly.
chroot . /usr/bin/mksquashfs / /run/lab/squashfs -one-file-system -wildcards -e 'run/*' \
    -noI -noD -noF -noX -quiet -no-progress
umount run/lab
