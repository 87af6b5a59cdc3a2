# What zsh offers for a command line: ZSH TREE DIRECTORY INNER NOTES LINE; a line each.
#
# Only an interactive zsh completes, so there is one at a terminal of its own, and a tab is typed.
# TREE has zsh's functions and modules unless it is empty; DIRECTORY has the completion that is tested;
# NOTES is where zsh notes which there are.
module_path=($2/usr/lib/*/zsh/*(/N) $module_path)
zmodload zsh/zpty
zpty inner "TERM=dumb $1 -f -i"
zpty -w inner "notes=$5 module_path=($module_path)"
zpty -w inner "fpath=($3 $2/usr/share/zsh/functions/**/*(/N) \$fpath); source $4"
# What is typed comes back, too: the words are never whole in it.
while zpty -r inner line; do [[ $line == *INNER-READY* ]] && break; done
zpty -w -n inner "$6"$'\t'
while zpty -r inner line; do
    [[ $line == *HIT:* ]] && print -r -- "${${line##*HIT:}%$'\r\n'}"
    [[ $line == *INNER-DONE* ]] && break
done
zpty -d inner
