#!/bin/sh
# The lab's word in its installed Debian: as PID 1 a small init with sshd, else a servant of systemd's
# that says that the system is up.
#
# A line of facts is `@@ NAME=VALUE`; `@@ up=ADDRESS` asks the lab in, and who comes ends the machine.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

say() { echo "@@ $1=$2"; }
address() { ip -o -4 address show scope global | sed -n '1s/.* inet \([0-9.]*\).*/\1/p'; }

if [ "${1-}" = told ]; then
    exec >/dev/console 2>&1
    echo "@@ begin"
    say failed "$(systemctl --failed --no-legend --plain | awk '{ print $1 }' | tr '\n' ' ')"
    say kernel_hostname "$(cat /proc/sys/kernel/hostname)"
    say up "$(address)"
    echo "@@ end"
    exit
fi

# udhcpc, with what it was given: the address and no more is wanted.
if [ -n "${interface-}" ]; then
    if [ "$1" = bound ]; then
        ip address add "${ip-}/${mask-}" dev "$interface"
        gateway=${router-}
        ip route add default via "${gateway%% *}" dev "$interface"
    fi
    exit
fi

echo "@@ begin"
dmesg -n 1
for process in /proc/[0-9]*; do
    [ "$process" = /proc/1 ] || program=$(readlink "$process/exe") || continue
    [ "$process" = /proc/1 ] || say process "$program"
done
for place in /proc /sys /dev /run; do
    grep -q " $place " /proc/mounts || say missing "$place"
done
hostname -F /etc/hostname
say kernel_hostname "$(cat /proc/sys/kernel/hostname)"
mkdir -p /dev/pts /run/sshd
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
ip link set lo up
for card in /sys/class/net/e*; do card=${card##*/}; done
ip link set "$card" up
busybox udhcpc -q -n -i "$card" -s /usr/sbin/lab-init -x "hostname:$(cat /etc/hostname)" >/run/udhcpc.log 2>&1 ||
    say missing dhcp
/usr/sbin/sshd -E /run/sshd.log || say missing sshd
say up "$(address)"
count=0
while [ ! -e /run/over ] && [ "$count" -lt 400 ]; do
    sleep 0.2
    count=$((count + 1))
done
[ -e /run/over ] || say missing visitor
while IFS= read -r line; do echo "@@ sshd: $line"; done </run/sshd.log
echo "@@ end"
sync
mount -o remount,ro /
busybox poweroff -f
while :; do sleep 60; done
