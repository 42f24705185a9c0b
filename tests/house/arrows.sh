#!/usr/bin/env bash
# Floors: core < sae < store < {cli, gui, notebooks}.  An include may point to its own floor or downwards, is spelled from
# the root of the repository, and names a file that exists; a library that belongs to one floor is included nowhere else.
. "$(dirname "$0")/files.sh"

below() { # the floors a folder may include from
    case $1 in
    core) echo core ;;
    sae) echo core sae ;;
    store) echo core sae store ;;
    cli) echo core sae store cli ;;
    gui) echo core sae store gui ;;
    notebooks) echo core sae store notebooks ;;
    *) echo core sae store cli gui notebooks tests examples ;;
    esac
}

keeper() { # the floors a system header belongs to; empty: anyone's
    case $1 in
    hdf5* | H5* | sqlite3*) echo store ;;
    gtk/* | gdk/* | glib* | adwaita* | cairo* | pango/*) echo gui ;;
    editline/* | readline/* | histedit*) echo cli ;;
    cblas* | openblas*) echo core sae ;;
    esac
}

has() { # word list...
    local word=$1
    shift
    [[ " $* " == *" $word "* ]]
}

n=0
while read -r file; do
    n=$((n + 1))
    floor=${file%%/*}
    while read -r quoted; do
        [[ $quoted == */* ]] || complain "$file: \"$quoted\" does not spell its floor"
        has "${quoted%%/*}" "$(below "$floor")" || complain "$file: $floor must not see \"$quoted\""
        [ -f "$quoted" ] || complain "$file: no file \"$quoted\""
    done < <(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"([^"]+)".*/\1/p' "$file")
    [ "$floor" = tests ] && continue
    while read -r system; do
        owners=$(keeper "$system")
        [ -z "$owners" ] || has "$floor" "$owners" || complain "$file: <$system> belongs to $owners alone"
    done < <(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*<([^>]+)>.*/\1/p' "$file")
done < <(sources)
done_checking $n
