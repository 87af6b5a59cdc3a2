# shellcheck shell=bash
# Completion of preroot for bash 4.2 and later. It needs nothing of the package bash-completion, which
# loads it by itself from share/bash-completion/completions/preroot; without, source it.

_preroot() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words='' kept
    # Bash has an option, `=` and its value as three words.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = && $COMP_CWORD -gt 2 ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    COMPREPLY=()

    if [[ $COMP_CWORD -eq 1 ]]; then
        words='provision prefetch init report lease status --help --version'
    elif [[ ${COMP_WORDS[1]} == status ]]; then
        words='--json'
    elif [[ ${COMP_WORDS[1]} == report && $COMP_CWORD -eq 2 ]]; then
        words='ready failed'
    elif [[ ${COMP_WORDS[1]} == @(provision|prefetch|report|lease) ]]; then
        case $prev in
            --root)
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -d -- "$cur")
                return
                ;;
            --media)
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return
                ;;
            --nic)
                mapfile -t COMPREPLY < <(cd /sys/class/net 2>/dev/null && compgen -f -- "$cur")
                return
                ;;
            --steps)
                # A list: what stands before the last comma stays, and is not offered again.
                kept=${cur%"${cur##*,}"}
                for words in hostname user password keys sudo sshd hostkeys customdata markers; do
                    if [[ ,$kept != *",$words,"* && $kept$words == "$cur"* ]]; then
                        COMPREPLY+=("$kept$words")
                    fi
                done
                compopt -o nospace
                return
                ;;
            --platform) words='auto azure' ;;
            --disc-reader) words='auto own kernel' ;;
            --ready) words='rooted early later never' ;;
            --network) words='auto release keep' ;;
            --output) words='auto files credentials' ;;
            --sudo) words='auto nopasswd password never' ;;
            --system-users) words='refuse allow' ;;
            --root-password) words='keep lock' ;;
            --cloud-init) words='off userdata' ;;
            --customdata.exec | --report-host-key) words='yes no' ;;
            --log) words='auto kmsg stderr' ;;
            --wait-root | --vm-id | --timeout | --reason) return ;;
            *)
                words='--root --wait-root --platform --nic --media --disc-reader --vm-id --ready
                    --network --output --steps --sudo --system-users --root-password
                    --customdata.exec --cloud-init --report-host-key --timeout --dry-run --log'
                if [[ ${COMP_WORDS[1]} == report && ${COMP_WORDS[2]} == failed ]]; then
                    words+=' --reason'
                fi
                ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _preroot preroot
