#!/bin/sh
# Makes the root of a whole disk: a Debian with an agent, its kernel, and an initramfs that it makes itself.
#
# ARCHIVE PACKAGES ADDITIONS AGENT KERNEL RELEASE DISK OFFSET UUID SIZE; run as root in mount and pid
# namespaces of its own. The file system is put into the file DISK at OFFSET (bytes) with SIZE (KiB).
set -eu
archive=$1 packages=$2 additions=$3 agent=$4 kernel=$5 release=$6 disk=$7 offset=$8 uuid=$9
shift 9
size=$1
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C
export PATH="$PATH:/usr/sbin:/sbin"

top=$(dirname "$disk")/tree
mkdir "$top"
mount -t tmpfs -o mode=755,size=2G lab "$top"
cd "$top"
tar --numeric-owner -xpf "$archive"
mount -t tmpfs lab dev
for node in null zero full random urandom tty; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
mount --rbind /proc proc
mount -t tmpfs lab tmp
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d

mkdir run/archives
mount --bind "$packages" run/archives
# What is asked for needs much that is there already.
is_there() {
    for list in "var/lib/dpkg/info/$1.list" "var/lib/dpkg/info/$1":*.list; do
        [ ! -e "$list" ] || return 0
    done
    return 1
}
for package in "$packages"/*.deb; do
    [ -e "$package" ] || continue
    name=${package##*/}
    is_there "${name%%_*}" || echo "/run/archives/$name"
done >tmp/wanted
[ ! -s tmp/wanted ] ||
    chroot . /usr/bin/xargs -a /tmp/wanted dpkg --path-exclude='/usr/share/doc/*' --path-exclude='/usr/share/man/*' \
        --path-exclude='/usr/share/locale/*' --force-depends --install </dev/null
umount run/archives
rmdir run/archives
case $agent in
cloud-init) chroot . dpkg --purge waagent </dev/null ;;
waagent) chroot . dpkg --purge cloud-init </dev/null ;;
esac
test -z "$(chroot . dpkg --audit)"
rm usr/sbin/policy-rc.d

# The lab's own word in its Debians, and what kept the console for it. Who makes a key of the type RSA anew
# keeps an emulated machine busy for half a minute.
rm etc/systemd/system/lab-told.service etc/systemd/system/multi-user.target.wants/lab-told.service \
    usr/sbin/lab-init etc/systemd/system/serial-getty@.service etc/ssh/ssh_host_rsa_key*
rm etc/systemd/system/multi-user.target.wants/systemd-networkd.service
case $agent in
preroot) chroot . systemctl --quiet enable systemd-networkd ;;
cloud-init)
    # It describes the network to networkd by itself.
    rm etc/systemd/network/10-lab.network
    chroot . systemctl --quiet enable systemd-networkd
    ;;
waagent)
    sed -i 's/^\(Provisioning.Agent\)=.*/\1=waagent/
        s/^\(Provisioning.SshHostKeyPairType\)=.*/\1=ed25519/
        s/^\(ResourceDisk.Format\)=.*/\1=n/' etc/waagent.conf
    ;;
esac
cp -R "$additions/." .

# What an Azure VM or QEMU's has, and what an agent loads: an emulated machine looks at every one of them.
mkdir -p "usr/lib/modules/$release/kernel/drivers/net"
from=$kernel/lib/modules/$release to=usr/lib/modules/$release
cp "$from"/modules.builtin* "$from/modules.order" "$to/"
for part in arch/x86/crypto crypto lib drivers/acpi drivers/ata drivers/block drivers/cdrom drivers/char drivers/hid \
    drivers/hv drivers/input drivers/net/hyperv drivers/net/net_failover.ko drivers/net/virtio_net.ko drivers/nvme \
    drivers/pci drivers/ptp drivers/scsi drivers/uio drivers/virtio fs/fat fs/fuse fs/isofs fs/nls fs/overlayfs fs/udf \
    net/core net/ipv4/netfilter net/ipv6/netfilter net/netfilter; do
    [ -e "$from/kernel/$part" ] || continue
    mkdir -p "$to/kernel/${part%/*}"
    cp -R "$from/kernel/$part" "$to/kernel/$part"
done
chroot . depmod "$release"
cp "$kernel/boot/vmlinuz-$release" "$kernel/boot/config-$release" boot/
chroot . /usr/sbin/mkinitramfs -c zstd -l 1 -o "/boot/initrd.img-$release" "$release" 2>&1 | tee "${disk%/*}/initramfs.log"

umount tmp
umount -l proc
umount -R dev
rm -rf run/* var/tmp/* var/log/*.log var/log/apt/* var/cache/apt/*.bin
# By this systemd knows that it need not look for what an update of /usr would want.
touch etc/.updated var/.updated
mke2fs -q -t ext4 -L lab-image -U "$uuid" -I 256 -b 4096 -m 0 \
    -E "offset=$offset,root_owner=0:0,hash_seed=$uuid" -d . "$disk" "${size}k"
