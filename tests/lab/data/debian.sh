#!/bin/sh
# Makes a Debian of its packages: unpacks them all, then lets each configure itself, as debootstrap
# does; fills an archive with it, and a disk if one is named.
#
# ARCHIVES ADDITIONS ROOT.tar [ROOT.ext4 UUID SIZE]; run as root in mount and pid namespaces of its own.
set -eu
archives=$1 additions=$2 tar=$3 disk=${4-} uuid=${5-} size=${6-}
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C
export PATH="$PATH:/usr/sbin:/sbin"

# Every package asks for its files to be on the disk before it goes on; here nobody wants that.
top=$(dirname "$tar")/tree
mkdir "$top"
mount -t tmpfs -o mode=755,size=1G lab "$top"
cd "$top"
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 etc/dpkg/dpkg.cfg.d proc run
for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$directory"; done
unwanted='doc info locale man'
for directory in $unwanted; do
    echo "path-exclude=/usr/share/$directory/*"
done >etc/dpkg/dpkg.cfg.d/lab
for package in "$archives"/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink \
        --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale
done
mount -t tmpfs lab dev
for node in null zero full random urandom tty; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir run/archives
mount --bind "$archives" run/archives
mount --rbind /proc proc
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
# What the first packages' own scripts need.
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
: >var/lib/dpkg/status
# shellcheck disable=SC2016
chroot . /bin/sh -ec 'cd /run/archives
    dpkg --force-depends --install base-passwd_*.deb base-files_*.deb
    dpkg --force-depends --install ./*.deb
    test -z "$(dpkg --audit)"' </dev/null
rm usr/sbin/policy-rc.d
umount -l proc
umount run/archives
rmdir run/archives
umount -R dev
rm -rf run/* tmp/* etc/machine-id etc/dpkg/dpkg.cfg.d/lab
: >etc/machine-id
cp -R "$additions/." .
if [ -e usr/sbin/lab-seal ]; then
    chroot . /usr/sbin/lab-seal
    rm usr/sbin/lab-seal
fi
# The homes that the system's own accounts are said to have, so that `pwck` has nothing to say.
mkdir -p var/cache/man var/spool/lpd var/spool/news var/spool/uucp var/www var/list
tar --numeric-owner --sort=name -cf "$tar" .
[ -n "$disk" ] || exit 0
mke2fs -q -t ext4 -L lab-debian -U "$uuid" -I 256 -b 4096 -m 0 \
    -E "root_owner=0:0,hash_seed=$uuid" -d . "$disk" "$size"
