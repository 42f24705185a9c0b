# shellcheck shell=bash
# Completion for bash: commands and options are asked of the program itself, so that this file never lags behind.
_lapidary() {
    local word=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]}
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ] || { [ "$COMP_CWORD" = 2 ] && [ "${COMP_WORDS[1]}" = help ]; }; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" --help 2>/dev/null |
            sed -nE '/^Commands:/,/^$/s/^  ([a-z-]+)  .*/\1/p')" -- "$word")
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" "${COMP_WORDS[1]}" --help 2>/dev/null |
            sed -nE 's/^  +(-[a-zA-Z], )?(--[a-z-]+).*/\2/p')" -- "$word")
    fi
}
complete -o default -F _lapidary lapidary
