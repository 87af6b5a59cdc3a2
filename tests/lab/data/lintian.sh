#!/bin/sh
# Lets Debian's lintian read a package, in a system of lintian's packages, which are only unpacked.
#
# ARCHIVES PACKAGE WORK; run as root in mount and pid namespaces of its own.
set -eu
archives=$1 package=$2 work=$3
export LC_ALL=C.UTF-8
export PATH="$PATH:/usr/sbin:/sbin"

top=$work/tree
mkdir "$top"
mount -t tmpfs -o mode=755,size=1G lab "$top"
cd "$top"
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 proc dev tmp
for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$directory"; done
for archive in "$archives"/*.deb; do
    dpkg-deb --fsys-tarfile "$archive" | tar -x --keep-directory-symlink \
        --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale
done
for node in null zero full random urandom; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mount --rbind /proc proc
ln -s debian etc/dpkg/origins/default
mount -t tmpfs lab tmp
cp "$package" tmp/
# On Ubuntu it would go by Ubuntu's rules.
HOME=/tmp chroot . lintian --allow-root --profile debian --pedantic --display-info \
    --fail-on none "/tmp/${package##*/}" </dev/null
