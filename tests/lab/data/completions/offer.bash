# What bash offers for a command line: COMPLETION WORD...; a line each. There is no bash-completion.
#
# shellcheck disable=SC1090 # It is the completion that is tested.
set -eu
# It tells readline how to go on, and there is none.
compopt() { :; }
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
complete -p preroot >/dev/null
_preroot
if ((${#COMPREPLY[@]})); then
    printf '%s\n' "${COMPREPLY[@]}"
fi
