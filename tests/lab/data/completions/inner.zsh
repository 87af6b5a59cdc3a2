# Of the zsh that `offer.zsh` types to: tells what is offered, and ends.
PROMPT=
autoload -Uz compinit
compinit -u -d $notes
compadd() {
    # What is asked for into an array is asked for, and not offered.
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd "$@"
        return
    fi
    typeset -a hits
    builtin compadd -A hits "$@"
    print -rl -- $'\n'HIT:$^hits
    builtin compadd "$@"
}
finish() {
    print INNER-DONE
    exit
}
comppostfuncs=(finish)
bindkey '^I' complete-word
print INNER-READY
