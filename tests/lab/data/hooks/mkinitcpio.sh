#!/bin/bash
# Runs a build hook of mkinitcpio with the functions that mkinitcpio(8) documents for such hooks, so
# far as preroot's uses them. What the hook builds is a directory that a test looks at.
#
#   SYSTEM     the tree in which the hook finds what it adds
#   BUILDROOT  where the image grows
#   MODULES    the modules that the kernel has, between spaces; others are built in or missing
#   HOOKS      the runtime hooks
#
# mkinitcpio.sh HOOK [systemd]
#
# A function that is not here is not documented: the hook fails.

set -e

# mkinitcpio goes on after an error and tells it at the end.
errors=0
error() {
    echo "ERROR: $*" >&2
    errors=$((errors + 1))
}

command_not_found_handle() {
    error "no function of mkinitcpio: $1"
    return 127
}

# Calls the first word with each of the others and tells how many failed.
map() {
    local call=$1 word failed=0
    shift
    for word; do
        "$call" "$word" || failed=$((failed + 1))
    done
    return "$failed"
}

add_module() {
    local name=${1%\?}
    if [[ " $MODULES " == *" $name "* ]]; then
        mkdir -p "$BUILDROOT/modules"
        : > "$BUILDROOT/modules/$name"
    elif [[ $1 != *\? ]]; then
        error "module not found: $1"
        return 1
    fi
}

# add_file SOURCE [DESTINATION] [MODE]
add_file() {
    local to=${2:-$1}
    if [[ ! -f $SYSTEM$1 ]]; then
        error "file not found: $1"
        return 1
    fi
    install -D -m "${3:-$(stat -c %a "$SYSTEM$1")}" "$SYSTEM$1" "$BUILDROOT$to"
}

# add_binary SOURCE [DESTINATION] [MODE]
add_binary() {
    add_file "$@"
}

# add_symlink NAME [TARGET]
add_symlink() {
    mkdir -p "$BUILDROOT${1%/*}"
    ln -sfn "${2:?the hook names no target}" "$BUILDROOT$1"
}

# Adds the hook of the same name and tells init of its functions.
add_runscript() {
    local name=${BASH_SOURCE[1]##*/} word
    if [[ ! -x $HOOKS/$name ]]; then
        error "runtime hook not found, or not executable: $name"
        return 1
    fi
    install -D -m 755 "$HOOKS/$name" "$BUILDROOT/hooks/$name"
    while IFS= read -r word; do
        if [[ $word =~ ^(run_[a-z]+)\(\) ]]; then
            echo "${BASH_REMATCH[1]}" >> "$BUILDROOT/functions"
        fi
    done < "$HOOKS/$name"
}

if [[ $2 == systemd ]]; then
    # Adds a unit, the units that it requires and the programs that it runs.
    add_systemd_unit() {
        local unit=/usr/lib/systemd/system/$1 key values
        if [[ ! -f $SYSTEM$unit ]]; then
            return 1
        fi
        add_file "$unit"
        while IFS='=' read -r key values; do
            read -ra values <<< "$values"
            case $key in
            Requires | OnFailure) map add_systemd_unit "${values[@]}" ;;
            Exec*) add_binary "${values[0]}" ;;
            esac
        done < "$SYSTEM$unit"
    }
fi

# Where a hook looks for itself whether something is there, it means the system.
hook=$BUILDROOT/.build/${1##*/}
mkdir -p "${hook%/*}"
while IFS= read -r line || [[ $line ]]; do
    printf '%s\n' "${line//-r \/etc/-r $SYSTEM/etc}"
done < "$1" > "$hook"

# shellcheck source=/dev/null # It is an argument.
. "$hook"
build
help > "$BUILDROOT/help"
[[ $errors == 0 ]]
