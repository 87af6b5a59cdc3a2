#!/bin/sh
# What a visitor, as root, finds in a Debian that has started: lines of facts, as of `init.sh`. Its last
# act is to switch the machine off.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C

say() { echo "@@ $1=$2"; }
block() { while IFS= read -r line; do echo "@@ $1: $line"; done; }

echo "@@ begin"
# Started when the system is up; what it does is to be seen, too.
while systemctl --quiet is-active preroot-ready.service; do sleep 0.5; done
say state "$(systemctl is-system-running --wait)"
systemctl --failed --no-legend --plain --full | block failed
say static_hostname "$(hostnamectl --static)"
say hostname "$(hostname)"
networkctl list --no-legend --no-pager 2>&1 | block link
ip -o address show scope global | block address
ip -o route show table all type unicast | block route
block mounts </proc/mounts
block resolv </etc/resolv.conf
journalctl -b --no-pager | grep -iE 'cannot rename|already up' | block renaming
for process in /proc/[0-9]*; do
    # A kernel thread has no program.
    program=$(readlink "$process/exe") || continue
    echo "$program $(tr '\0' ' ' <"$process/cmdline")" | block process
done
find /run/preroot | block run
# When preroot was run, and when it ended.
grep -E 'sched_process_(exec: filename=[^ ]*/preroot |exit: comm=preroot )' /sys/kernel/tracing/trace | block trace
# And how long all of its processes kept a processor, in nanoseconds.
say processor_ns "$(awk '/sched_stat_runtime: comm=preroot / {
    for (i = 1; i <= NF; i++) if (sub(/^runtime=/, "", $i)) sum += $i
} END { printf "%d", sum }' /sys/kernel/tracing/trace)"
journalctl -b --no-pager -o short-monotonic -u 'preroot*' -u ssh 2>&1 | block units
journalctl -b --no-pager -o short-monotonic -p warning 2>&1 | block warning
echo "@@ end"
systemctl poweroff --no-wall --no-block
