#!/bin/sh
# Runs the mkinitcpio of this system, in a mount namespace where a product is laid over /usr.
#
# mkinitcpio-real.sh WORK SYSTEM CONFIGURATION
#
# Lists the image. What mkinitcpio says goes to standard error; its own code tells too of programs that
# other hooks miss, and is not ours.
set -e
mkdir "$1/upper" "$1/work"
cp -a "$2/usr/." "$1/upper"
mount -t overlay overlay -o "lowerdir=/usr,upperdir=$1/upper,workdir=$1/work" /usr
mkinitcpio --config "$3" --kernel none --generate "$1/image" >&2 || :
lsinitcpio "$1/image"
