#!/bin/bash
# Runs a module of dracut with the functions that dracut's documentation names for modules, so far as
# preroot's uses them. What it builds is a directory that a test looks at.
#
#   SYSTEM     the tree in which the module finds what it adds
#   initdir    where the image grows
#   MODULES    the modules that the kernel has, between spaces; others are built in or missing
#   INCLUDED   the other modules of dracut in the image, between spaces
#
# dracut.sh MODULE-DIRECTORY
#
# Ends with what check() gave when that is not 0. A function that is not here is not documented.

set -e

command_not_found_handle() {
    echo "no function of dracut: $1" >&2
    exit 127
}

dfatal() {
    echo "FATAL: $*" >&2
}

require_binaries() {
    local missing=0 name
    for name; do
        [[ -x $SYSTEM$name ]] || missing=$((missing + 1))
    done
    return "$missing"
}

dracut_module_included() {
    [[ " $INCLUDED " == *" $1 "* ]]
}

# A kernel module of a machine that is not this one is left out in hostonly mode.
# shellcheck disable=SC2154 # The module says so before the call.
instmods() {
    local name
    for name; do
        if [[ -z $hostonly && " $MODULES " == *" $name "* ]]; then
            mkdir -p "$initdir/modules"
            : > "$initdir/modules/$name"
        fi
    done
}

# inst_simple SOURCE [DESTINATION]
inst_simple() {
    local from=$SYSTEM$1
    [[ $1 == "$moddir"/* ]] && from=$1
    [[ -f $from ]] || return 1
    # The module has a function of that name.
    command install -D -m "$(stat -c %a "$from")" "$from" "$initdir${2:-$1}"
}

# inst_hook POINT PRIORITY SCRIPT
inst_hook() {
    case $1 in
    cmdline | pre-udev | pre-trigger | initqueue | pre-mount | mount | pre-pivot | cleanup | emergency) ;;
    *)
        echo "no point for hooks: $1" >&2
        exit 1
        ;;
    esac
    inst_simple "$3" "/hooks/$1/$2-${3##*/}"
}

# ln_r TARGET NAME; the directory has to be there.
ln_r() {
    ln -sfn --relative "$initdir$1" "$initdir$2"
}

# What the module reads of dracut's.
# shellcheck disable=SC2034 # The module is read further down.
moddir=$1 systemdsystemunitdir=/usr/lib/systemd/system dracutsysrootdir=$SYSTEM hostonly=yes

# shellcheck source=/dev/null # It is an argument.
. "$moddir/module-setup.sh"
code=0
check || code=$?
[[ $code == 0 ]] || exit "$code"
for module in $(depends); do
    echo "$module" >> "$initdir/depends"
done
# dracut minds no code of theirs.
set +e
installkernel
install
true
