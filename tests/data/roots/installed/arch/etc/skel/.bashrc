[[ $- != *i* ]] && return
