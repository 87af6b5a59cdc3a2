#!/bin/bash
# make.sh WORK OUT: makes the golden images anew. Needs root for nothing.
# Debian 12 packages: udftools 2.3, genisoimage 1.1.11, xorriso 1.5.4, udfclient 0.8.11, busybox-static
# 1.35, qemu-system-x86, cpio; and linux-image-*-cloud-amd64, which is unpacked (dpkg -x) in WORK/linux.
set -e
here=$(cd "$(dirname "$0")" && pwd)
work=$1 out=$2
mkdir -p "$work" "$out"; out=$(cd "$out" && pwd); cd "$work"
rm -rf tree rock guest plan map; mkdir -p guest/bin guest/mod guest/proc guest/sys guest/dev

keep() { gzip -9nc "$1.img" > "$out/$1.img.gz"; cat > "$out/$1.list"; }
sums() { (cd "$1"; find . -type f | LC_ALL=C sort | while IFS= read -r f; do
  echo "file $(busybox crc32 "$f" | cut -c1-8) $(stat -c %s "$f") ${f#./}"; done); }
head_of() { echo "kind $1"; echo "label $2"; }

# UDF as Linux writes it: made empty by mkudffs, filled in a virtual machine.
drives=() index=0
linux() { # NAME MOUNT-OPTIONS STEPS SIZE REVISION LABEL MKUDFFS-OPTIONS...
  local name=$1 options=$2 steps=$3 size=$4 revision=$5 label=$6; shift 6
  rm -f "$name.img"; truncate -s "$size" "$name.img"
  mkudffs --utf8 --uuid=0123456789abcdef "$@" --label="$label" "$name.img"
  local device; device=vd$(echo abcdefghijklmnop | cut -c$((index + 1)))
  echo "$device $options $steps" >> plan
  echo "$device $name $revision $label" >> map
  drives+=(-drive "if=virtio,format=raw,cache=unsafe,file=$name.img"); index=$((index + 1))
}
linux udf-102-2048 adinicb plain 2M 1.02 rd_rdfe_stable.1 -m hd -r 1.02 -b 2048
linux udf-150-512 adinicb woven 2M 1.50 rd_rdfe_stable.2 -m hd -r 1.50 -b 512
linux udf-200-1024-shortad noadinicb,shortad woven 3M 2.00 LinuxUDF -m hd -r 2.00 -b 1024 --ad=short
linux udf-201-2048 adinicb woven 3M 2.01 'Grüße 名前' -m hd -r 2.01 -b 2048
linux udf-201-512-longad noadinicb,longad woven 3M 2.01 LinuxUDF -m hd -r 2.01 -b 512 --ad=long
linux udf-201-4096 adinicb plain 4M 2.01 LinuxUDF -m hd -r 2.01 -b 4096
linux udf-201-sparable adinicb plain 4M 2.01 LinuxUDF -m dvdrw -r 2.01
linux udf-150-sparable adinicb plain 4M 1.50 LinuxUDF -m cdrw -r 1.50
linux udf-201-fe adinicb plain 2M 2.01 LinuxUDF -m hd -r 2.01 -b 2048 --noefe
cp "$(command -v busybox)" guest/bin/busybox
cp "$here/fill.sh" plan guest/; cp "$here/guest.sh" guest/init; chmod +x guest/init
find linux/ -name '*.ko' | grep -E '/(virtio|virtio_ring|virtio_pci|virtio_pci_legacy_dev|virtio_pci_modern_dev|virtio_blk|cdrom|crc-itu-t|udf)\.ko$' \
  | xargs -I{} cp {} guest/mod/
(cd guest; find . | cpio -o -H newc --quiet | gzip -1) > guest.img.gz
timeout 900 qemu-system-x86_64 -accel tcg -machine pc -cpu Nehalem -m 512 -nographic -no-reboot \
  -nodefaults -serial file:console.log -kernel linux/boot/vmlinuz-* -initrd guest.img.gz \
  -append "console=ttyS0 panic=-1 mitigations=off quiet" "${drives[@]}"
if grep -a '@@FAIL' console.log || ! grep -qa '@@ done' console.log; then exit 1; fi
while read -r device name revision label; do
  (head_of "udf $revision" "$label"; sed -n "s/\r//; s/.*@@FILE $device /file /p" console.log) | keep "$name"
done < map

# UDF that is to be refused, empty as mkudffs made it.
mkdir -p "$out/refused"
refused() { local name=$1; shift; rm -f "$name.img"; truncate -s 1M "$name.img"
  mkudffs --utf8 --uuid=0123456789abcdef "$@" "$name.img"; gzip -9nc "$name.img" > "$out/refused/$name.img.gz"; }
refused udf-150-virtual -m cdr -r 1.50
refused udf-201-strategy-4096 -m hd -r 2.01 -b 2048 --strategy=4096

# The bridge between ISO 9660 and UDF, and ISO 9660 alone.
sh "$here/fill.sh" tree; cp -r tree rock
echo long > rock/"$(printf 'n%.0s' {1..246})".txt # does not fit in one directory record
volume=rd_rdfe_stable.240101-0101
geniso() { genisoimage -quiet -V $volume -input-charset utf-8 "$@"; }
geniso -udf -o iso-udf.img tree
geniso -udf -R -J -o iso-udf-rock-joliet.img tree
geniso -R -o iso-rock.img rock
geniso -J -o iso-joliet.img tree # its label is cut to 16 characters
geniso -iso-level 1 -o iso-plain.img tree
geniso -allow-leading-dots -relaxed-filenames -allow-lowercase -l -o iso-relaxed.img tree
xorriso -as mkisofs -quiet -R -J -V XORRISO -o xorriso-rock-joliet.img rock
(head_of 'udf 1.02' $volume; sums tree) | keep iso-udf
(head_of 'udf 1.02' $volume; sums tree) | keep iso-udf-rock-joliet
(head_of 'iso9660 with Rock Ridge' $volume; sums rock) | keep iso-rock
(head_of 'iso9660 with Joliet' ${volume:0:16}; sums tree) | keep iso-joliet
(head_of 'iso9660 with Rock Ridge' XORRISO; sums rock) | keep xorriso-rock-joliet
for name in iso-plain iso-relaxed; do # names as isoinfo tells them: these trees change them
  (head_of iso9660 $volume
   isoinfo -i $name.img -f | grep ';1$' | while read -r f; do
     isoinfo -i $name.img -x "$f" > one; f=${f#/}; f=${f%;1}
     echo "file $(busybox crc32 one | cut -c1-8) $(stat -c %s one) ${f%.}"; done) | keep $name
done

# UDF of the NetBSD line. This version loses what does not fit its idea of a full disc.
dd if=/dev/zero of=udfclient-512.img bs=1M count=8
newfs_udf -S aset -P prim -L disclabel udfclient-512.img
rm -rf back; mkdir back
session() { (echo "cd aset:prim:disclabel:fileset"; echo "lcd $1"
  for f in ovf-env.xml CustomData.bin small.txt empty dir; do echo "$2 $f"; done; echo quit); }
session tree put | udfclient -W udfclient-512.img
session back get | udfclient udfclient-512.img
(head_of 'udf 2.01' disclabel; sums back) | keep udfclient-512
