#!/usr/bin/env bash
# `lapidary label`: what is typed is shown wherever labels are, found, listed, undone, carried to another file and back.
# Usage: test_label.sh path/to/lapidary
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"
export USER=ada
sae=3-lapidary-res-2k

run() { "$lapidary" "$@" >"$out" 2>"$err"; }

good_run() {
    if run "$@"; then good; else complain "lapidary $*: failed"; fi
}

# With that status, and the words in what it says.
refuses() { # status words command...
    local want=$1 words=$2 got
    shift 2
    run "$@"
    got=$?
    if [ "$got" = "$want" ] && grep -qF -- "$words" "$err"; then good; else complain "lapidary $*: exit $got, not $want with \"$words\""; fi
}

shows() { # file words
    if grep -qF -- "$2" "$1"; then good; else complain "no \"$2\" in: $(head -c 400 "$1")"; fi
}

good_run feature "$sae" 473
cp "$out" "$scratch/before"
refuses 1 "no labels yet" label search whales
good_run label show # nothing, and no file is made
if [ ! -e "$XDG_DATA_HOME" ]; then good; else complain "looking made a file"; fi

good_run label set "$sae" 473 $'of the sea, "wet"\nand deep'
good_run label note "$sae" 473 'look again'
good_run feature "$sae" 473
shows "$out" $'label\t\t473\tof the sea, "wet"\\nand deep'
good_run label set "$sae" 473 'whales'
good_run label show "$sae" 473
shows "$out" $'whales\tada\tperson'
shows "$out" $'look again\tada\tnote'
good_run features --sae "$sae" --top 2048 "The whale swam in the sea"
good_run label search --json whale
shows "$out" '"text": "whales"'
good_run label undo
shows "$out" "set $sae 473"
good_run label export "$scratch/all.csv"
shows "$scratch/all.csv" '"of the sea, ""wet""'
good_run label export "$scratch/all.jsonl"

good_run label list add sea "$sae" 473 "the first"
good_run label list add sea "$sae" 7 --at 1
good_run label list show sea
if [ "$(cut -f1,3,4 "$out" | tail -n 2)" = $'1\t7\t\n2\t473\tthe first' ]; then good; else complain "list in another order"; fi
good_run label list show
shows "$out" $'sea\t2'
good_run label list remove sea
refuses 1 'no list "sea"' label list show sea

for file in "$scratch/all.csv" "$scratch/all.jsonl"; do
    good_run label import "$file" --sae "$sae" --annotations "$file.sqlite"
    good_run label show "$sae" --annotations "$file.sqlite"
    if [ "$(wc -l <"$out")" = 3 ]; then good; else complain "$file: not two labels"; fi
    good_run feature "$sae" 473 --annotations "$file.sqlite"
    shows "$out" 'of the sea'
done
mkdir "$scratch/store"
good_run label set "$sae" 1 'in a store' --store "$scratch/store"
if [ -s "$scratch/store/annotations.sqlite" ]; then good; else complain "--store: no file there"; fi
good_run label backup "$scratch/copy.sqlite"
refuses 1 exists label backup "$scratch/copy.sqlite"

# Undone to the start, everything is as before.
while run label undo; do :; done
shows "$err" 'nothing to undo'
good_run feature "$sae" 473
if cmp -s "$out" "$scratch/before"; then good; else complain "undone, and yet other than before"; fi

refuses 2 'did you mean "search"' label serch x
refuses 2 'a number from 0 on' label set "$sae" x y
refuses 1 'this SAE has 0 to 2047' label set "$sae" 2048 y
refuses 1 'an empty label' label set "$sae" 1 ''
refuses 1 'not UTF-8' label set "$sae" 1 $'\xff'
refuses 1 'no such folder' label show --store "$scratch/none"
refuses 2 'of which SAE' label import "$scratch/all.jsonl"
printf 'not a database, whatever it is called; and a line that is long enough to look like one........................' \
    >"$XDG_DATA_HOME/lapidary/annotations.sqlite"
refuses 1 'not a file of annotations' label show
refuses 1 'not a file of annotations' feature "$sae" 473

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
