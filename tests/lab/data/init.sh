#!/bin/sh
# The real init of the lab's root disk: says what it was handed, and switches the machine off.
#
# One line of facts is `@@ NAME=VALUE`; a line of something longer is `@@ NAME: LINE`.
# It repairs what the initramfs left out, but only after having said so.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
# Without its three descriptors a shell says nothing at all, so take the console first.
[ -e /proc/self/fd/1 ] || [ ! -c /dev/console ] || exec </dev/console >/dev/console 2>&1

say() { echo "@@ $1=$2"; }
block() { while IFS= read -r line; do echo "@@ $1: $line"; done; }

echo "@@ begin"
[ $$ = 1 ] || say missing "pid-1"
[ -e /proc/mounts ] || { say missing /proc; mount -t proc proc /proc; }
need() { grep -q " $1 " /proc/mounts || { say missing "$1"; mount -t "$2" lab "$1"; }; }
need /sys sysfs
need /dev devtmpfs
need /run tmpfs
# The kernel's own lines would cut ours in two.
dmesg -n 1

read -r up rest </proc/uptime
say uptime "$up"
say descriptors "$(readlink /proc/1/fd/0),$(readlink /proc/1/fd/1),$(readlink /proc/1/fd/2)"
say umask "$(umask)"
for process in /proc/[0-9]*; do
    # A kernel thread has no program; ourselves we know.
    [ "$process" = /proc/1 ] || program=$(readlink "$process/exe") || continue
    [ "$process" = /proc/1 ] || say process "$program"
done
block mounts </proc/mounts
block environment <<END
$(tr '\0' '\n' </proc/1/environ)
END

# What it was called so far, and what it is called now: naming the machine is init's work.
say handed_hostname "$(cat /proc/sys/kernel/hostname)"
hostname -F /etc/hostname
say kernel_hostname "$(cat /proc/sys/kernel/hostname)"
say hostname "$(cat /etc/hostname)"
admin='' home=''
while IFS=: read -r name password uid gid gecos directory shell; do
    if [ "$uid" -ge 1000 ] && [ "$uid" -lt 65534 ]; then
        admin=$name home=$directory
        say passwd "$name:$password:$uid:$gid:$gecos:$directory:$shell"
    fi
done </etc/passwd
if [ -n "$admin" ]; then
    keys=$home/.ssh/authorized_keys
    if [ -s "$keys" ]; then
        ssh-keygen -lf "$keys" | while read -r fingerprint; do say key "$fingerprint"; done
    fi
    say groups "$(id -Gn "$admin")"
    # Never the hash: it is enough to know whether there is one.
    say password "$(sed -n "s/^$admin:\([^:]\).*/\1/p" /etc/shadow | sed 's/[^!*$]/?/')"
    stat -c '%a %u:%g %n' "$home" "$home/.ssh" "$keys" 2>&1 | block stat
fi
stat -c '%a %u:%g %n' /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/hostname /etc/hosts \
    /etc/sudoers.d/* 2>&1 | block stat
block hosts </etc/hosts
for file in /etc/sudoers.d/*; do
    [ -f "$file" ] && sed '/^#/d;/^$/d' "$file" | block sudo
done
if visudo -c >/run/visudo.log 2>&1; then say visudo ok; else block visudo </run/visudo.log; fi
ip -o link | block ip
ip -o addr | block ip
ip route | block route
[ -e /etc/resolv.conf ] && block resolv </etc/resolv.conf
find /var/lib/preroot /run/preroot -type f 2>/dev/null | block files
[ -e /run/preroot/report.json ] && block report </run/preroot/report.json
if [ -x /usr/sbin/preroot ]; then
    /usr/sbin/preroot status 2>&1 | block status
fi
read -r up rest </proc/uptime
say "done" "$up"
echo "@@ end"

# A clean journal, so that the disk can be read without a kernel afterwards.
sync
mount -o remount,ro /
poweroff -f
# Were it refused, the machine would run until the lab's patience ends.
echo o >/proc/sysrq-trigger
while :; do sleep 60; done
