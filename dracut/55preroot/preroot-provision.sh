#!/bin/sh
# Sourced by dracut when the root and /usr are mounted.
# Whatever becomes of it, the machine starts; the kernel log and the platform are told.
if [ ! -e /proc/vmcore ]; then
    # shellcheck disable=SC2154 # dracut says where the root is.
    /usr/bin/preroot provision --root "$NEWROOT" || :
fi
