#!/bin/sh
# Installs packages into a new root and packs it: debian.sh TREE OUTPUT ARCHIVE...
#
# Runs in mount and process namespaces of its own, as root there. The packages are unpacked first, so
# that there is a shell to configure them with, and then installed as their distribution does it.
set -eu
tree=$1
output=$2
shift 2

mount -t tmpfs -o mode=755 tmpfs "$tree"
cd "$tree"
for directory in bin sbin lib; do
    mkdir -p "usr/$directory"
    ln -s "usr/$directory" "$directory"
done
if [ -e /lib64 ]; then
    mkdir -p usr/lib64
    ln -s usr/lib64 lib64
fi
mkdir -p dev proc run tmp var/lib/dpkg packages
: > var/lib/dpkg/status

for archive; do
    cp "$archive" packages/
    # What nobody reads here.
    dpkg-deb --fsys-tarfile "$archive" | tar -x --keep-directory-symlink \
        --exclude './usr/share/doc/*' --exclude './usr/share/man/*' --exclude './usr/share/locale/*'
done

mount -t proc proc proc
mount -t tmpfs tmpfs dev
for device in null zero full random urandom; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
# No service is started by its installation.
printf '#!/bin/sh\nexit 101\n' > usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d

chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root \
    DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true \
    sh -c 'exec dpkg --force-depends --force-unsafe-io --install \
        --path-exclude="/usr/share/doc/*" --path-exclude="/usr/share/man/*" \
        --path-exclude="/usr/share/locale/*" /packages/*.deb'

umount dev/* dev proc
rm -rf packages usr/sbin/policy-rc.d var/log/* var/cache/debconf/*-old var/lib/dpkg/*-old
# What no package has and every image: and nobody's identity yet.
echo '# The root is mounted by the initramfs.' > etc/fstab
echo localhost > etc/hostname
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' > etc/hosts
: > etc/machine-id
tar -c --numeric-owner --sort=name -f "$output" .
