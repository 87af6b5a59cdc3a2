#!/bin/sh
# What becomes of a Debian when the package is installed, upgraded, removed and purged: lines of facts,
# `@@ STEP NAME=VALUE`.
#
# ARCHIVE GENERATOR PACKAGES OLD NEW KERNEL RELEASE WORK; run as root in mount and pid namespaces of its
# own. GENERATOR is a package that PACKAGES has, with all it needs, or `none`; KERNEL is a tree with boot/
# and lib/modules/.
set -eu
archive=$1 generator=$2 packages=$3 old=$4 new=$5 kernel=$6 release=$7 work=$8
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C
export PATH="$PATH:/usr/sbin:/sbin"

say() { echo "@@ $step $1=$2"; }
block() { while IFS= read -r line; do say "$1" "$line"; done; }

top=$work/tree
mkdir "$top"
mount -t tmpfs -o mode=755,size=1G lab "$top"
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
mkdir tmp/lab

# dpkg, whose words are kept: what it cannot do ends this.
dpkg() {
    chroot . dpkg "$@" </dev/null >tmp/lab/said 2>&1 || { cat tmp/lab/said; exit 1; }
}
# Its own news, and what the trigger says, are as everywhere.
said() {
    grep -vE '^(\(Reading|Selecting |Preparing |Unpacking |Setting up |Removing |Purging |Processing )' \
        tmp/lab/said |
        # Debian 12 has systemd's by another way, and dpkg does not know that they are one.
        grep -vE "^dpkg: warning: .* '[^']*/multi-user.target.wants' not empty so not removed\$" |
        block said || true
}
# Everything but what dpkg notes, and what a generator makes.
files() {
    find . -xdev -not -path './var/lib/dpkg/*' -not -path './var/log/*' -not -path './tmp/*' \
        -not -path './boot/*' '(' -type d -printf '%P %y %m %u\n' -o -printf '%P %y %m %u %s %l\n' ')' |
        grep -vE '^(|var/cache/ldconfig/aux-cache) ' | sort >"tmp/lab/$1"
}
left() { files now && diff tmp/lab/before tmp/lab/now | sed -n 's/^[<>] \([^ ]*\) .*/\1/p' | block left; }
image=boot/initrd.img-$release
image() {
    [ -s "$image" ] || { say image none; return; }
    say image "$(cksum <"$image" | cut -d ' ' -f 1)"
    rm -rf tmp/lab/image
    mkdir tmp/lab/image
    case $generator in
        dracut)
            chroot . lsinitrd "$image" >tmp/lab/names
            chroot . lsinitrd -f usr/bin/preroot "$image" >tmp/lab/image/preroot
            ;;
        initramfs-tools)
            chroot . lsinitramfs "$image" >tmp/lab/names
            chroot . unmkinitramfs "$image" tmp/lab/image
            ;;
    esac
    grep -oE '[^ ]*(preroot[^ ]*|hv_netvsc[^ ]*)$' tmp/lab/names | block has || true
    find tmp/lab/image -name preroot -size +9 -exec cksum {} + | cut -d ' ' -f 1 | block program
}

cp "$old" tmp/lab/old.deb
cp "$new" tmp/lab/new.deb
if [ "$generator" != none ]; then
    mkdir tmp/lab/packages
    for package in "$packages"/*; do
        name=${package##*/}
        # Of one that somebody has only heard of, dpkg knows something, too.
        # shellcheck disable=SC2016
        chroot . dpkg-query -f '${db:Status-Status}' -W "${name%%_*}" 2>/dev/null |
            grep -qx installed || cp "$package" tmp/lab/packages/
    done
    dpkg --install tmp/lab/packages/*.deb
fi

# As in an image that has no kernel yet.
files before
step=bare
dpkg --install /tmp/lab/old.deb
said
find boot -name 'initrd*' | block boot
dpkg --purge preroot
left

mkdir -p "usr/lib/modules/$release"
mount --bind "$kernel/lib/modules/$release" "usr/lib/modules/$release"
cp "$kernel/boot/"*"-$release" boot/
if [ "$generator" = none ]; then
    # A system that runs, and what is asked of its systemd.
    mkdir -p run/systemd/system usr/local/sbin
    # shellcheck disable=SC2016
    printf '#!/bin/sh\necho "$@" >>/tmp/lab/systemctl\n' >usr/local/sbin/systemctl
    chmod 755 usr/local/sbin/systemctl
else
    # Only what is there is updated.
    : >"$image"
    # Little, and quickly: what is looked for is ours.
    echo 'MODULES=list COMPRESS=zstd COMPRESSLEVEL=1' | tr ' ' '\n' >etc/initramfs-tools/conf.d/lab
    cat >etc/dracut.conf.d/lab.conf <<END
compress=cat
hostonly=no
early_microcode=no
drivers=" ext4 "
omit_dracutmodules+=" network network-legacy ifcfg crypt dm dmraid lvm mdraid multipath nfs nbd iscsi fcoe
    cifs drm plymouth i18n fips resume btrfs bluetooth pcsc tpm2-tss "
END
fi
asked() {
    if [ -f tmp/lab/systemctl ]; then
        block asked <tmp/lab/systemctl
        rm tmp/lab/systemctl
    fi
}
files before
step=installed
dpkg --install /tmp/lab/old.deb
said
asked
image
chroot . dpkg --verify preroot | block damaged
chroot . md5sum --check --quiet var/lib/dpkg/info/preroot.md5sums | block damaged
cksum <usr/bin/preroot | cut -d ' ' -f 1 | block installed
chroot . dpkg --listfiles preroot | while read -r path; do
    [ -d ".$path" ] || echo "$path"
done | block file
# What it writes on an Azure machine, and what a person may have written.
mkdir var/lib/preroot
echo 1 >var/lib/preroot/configured
echo 'sudo = password' >etc/preroot.conf

step=upgraded
dpkg --install /tmp/lab/new.deb
said
asked
image
cksum <usr/bin/preroot | cut -d ' ' -f 1 | block installed

step=removed
dpkg --remove preroot
said
asked
image
left

step=purged
# The image has not got it any more: it need not be made once more to see that.
dpkg --no-triggers --purge preroot
said
left
chroot . dpkg-query -W preroot 2>&1 | block known || true
