#!/bin/busybox sh
# /init of the virtual machine in which Linux fills the images that mkudffs made empty.
# Reads /plan, one disc a line: device, mount options, plain or woven.
# Says on the console what each disc holds, as read after a new mount: "@@FILE vda CRC32 LENGTH PATH".
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /tmp /m
for module in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk \
              cdrom crc-itu-t udf; do
  insmod /mod/$module.ko
done
while read -r device options steps; do
  mount -t udf -o "rw,utf8,$options" "/dev/$device" /m || { echo "@@FAIL mount $device"; continue; }
  sh /fill.sh /m || echo "@@FAIL fill $device"
  if [ "$steps" = woven ]; then
    # Data and holes in turn: more extents than one file entry can list.
    n=0; while [ $n -lt 64 ]; do
      printf 'piece %d\n' $n | dd of=/m/holes.bin bs=8192 seek=$n conv=notrunc 2>/dev/null
      n=$((n + 1))
    done
    # Two files grown in turn, so that neither lies in a row.
    n=0; while [ $n -lt 48 ]; do
      awk -v n=$n 'BEGIN { for (i = 0; i < 32; i++) printf "%063d\n", n * 1000 + i }' > /tmp/part
      cat /tmp/part >> /m/woven-a.bin; sync
      cat /tmp/part /tmp/part >> /m/woven-b.bin; sync
      n=$((n + 1))
    done
  fi
  # A name that was deleted, one that was renamed, and a link.
  echo gone > /m/many/deleted.txt; sync
  rm /m/many/deleted.txt /m/many/file-with-a-rather-long-name-7.txt
  mv /m/many/file-with-a-rather-long-name-8.txt /m/many/renamed.txt
  ln -s small.txt /m/link
  umount /m
  mount -t udf -o ro "/dev/$device" /m || echo "@@FAIL second mount $device"
  (cd /m || exit; find . -type f | sort | while read -r f; do
    echo "@@FILE $device $(crc32 "$f" | cut -c1-8) $(stat -c %s "$f") ${f#./}"
  done)
  umount /m
done < /plan
echo "@@ done"
poweroff -f
