# Stands in for /usr/share/initramfs-tools/hook-functions: the functions that initramfs-tools(7)
# documents for hooks, so far as preroot's uses them.
#
#   DESTDIR    where the image grows
#   MODULES    the modules that the kernel has, between spaces; others are built in or missing

# copy_file TYPE SOURCE [DESTINATION]
copy_file() {
    if [ ! -f "$2" ]; then
        echo "not found: $2" >&2
        return 2
    fi
    to=$DESTDIR${3:-$2}
    mkdir -p "${to%/*}"
    cp -p "$2" "$to"
}

# copy_exec SOURCE [DESTINATION]
copy_exec() {
    copy_file binary "$@"
}

manual_add_modules() {
    for name; do
        case " $MODULES " in
        *" $name "*)
            mkdir -p "$DESTDIR/modules"
            : > "$DESTDIR/modules/$name"
            ;;
        esac
    done
}
