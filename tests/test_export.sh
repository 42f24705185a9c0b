#!/usr/bin/env bash
# `lapidary export` from outside: what it writes, what it says when it cannot, and that nothing half-written stays.
# Usage: test_export.sh path/to/lapidary
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"
sae=3-lapidary-res-2k store=$scratch/store

run() { "$lapidary" "$@" -q >"$out" 2>"$err" </dev/null; }
good_run() {
    if run "$@"; then good; else complain "lapidary $*: failed"; fi
}
refuses() { # status words command...
    local want=$1 words=$2 got
    shift 2
    run "$@"
    got=$?
    if [ "$got" = "$want" ] && [ "$(wc -l <"$err")" = 1 ] && grep -qF -- "$words" "$err"; then good; else complain "lapidary $*: exit $got, not $want with \"$words\""; fi
}
same() { if [ "$1" = "$2" ]; then good; else complain "got \"${1:0:200}\", want \"${2:0:200}\""; fi; }

printf 'The whale swam in the sea.\nOnce upon a time there was a ship.\n' >"$scratch/corpus.txt"
good_run extract "$scratch/corpus.txt" --store "$store" --split lines --context 8 --shard-tokens 16 -S "$sae" -S 2-lapidary-res-2k
good_run export "$store" -S "$sae" --as csv -o "$scratch/a.csv"
same "$(head -n 1 "$scratch/a.csv")" document,pos,token,feature,value
good_run export "$store" -S "$sae" --as csv -o "$scratch/a.tsv.gz"
same "$(gunzip -c "$scratch/a.tsv.gz" | tr '\t' ,)" "$(cat "$scratch/a.csv")"
good_run export "$store"/runs/* -S "$sae" --as csv -o "$scratch/b.csv"
same "$(cat "$scratch/b.csv")" "$(cat "$scratch/a.csv")"
good_run export "$store" -S "$sae" --as delphi -o "$scratch/delphi" --json
good_run export check "$store" -S "$sae" --against "$scratch/delphi"
same "$(sed -n 's/^rows differ\t//p' "$out" | cut -f1)" 0
run export check "$store" -S 2-lapidary-res-2k --against "$scratch/delphi" --json
same "$?" 1
same "$(grep -c '"agrees": false' "$out")" 1
if grep -q 'rows disagree with 2-lapidary-res-2k' "$err"; then good; else complain "which rows disagree?"; fi

refuses 1 '2 SAEs in it; --sae' export "$store" --as csv -o "$scratch/c.csv"
refuses 1 'no SAE "x" in it' export "$store" -S x --as csv -o "$scratch/c.csv"
refuses 1 'exists; name another folder' export "$store" -S "$sae" --as delphi -o "$scratch/delphi"
refuses 1 'no such store' export "$scratch/none" --as csv -o "$scratch/c.csv"
refuses 1 'no shards in it' export "$scratch" --as csv -o "$scratch/c.csv"
refuses 1 'no shards in it' export "$store" --run 0123 -S "$sae" --as csv -o "$scratch/none/c.csv"
refuses 2 '--as csv|delphi' export "$store" -S "$sae"
refuses 2 '--against FILE' export check "$store" -S "$sae"
refuses 1 'neither .npz' export check "$store" -S "$sae" --against "$scratch/a.csv"
refuses 1 'no delphi cache' export check "$store" -S "$sae" --against "$store"
same "$(find "$scratch" -name '*.tmp' -o -name 'c.csv' | wc -l)" 0

# A shard whose bytes changed is not read.
shard=$(find "$store" -name shard-000000.h5)
chmod u+w "$shard" && printf x | dd of="$shard" bs=1 seek=5000 conv=notrunc 2>/dev/null
run export "$store" -S "$sae" --as csv -o "$scratch/c.csv"
same "$?" 1
[ ! -e "$scratch/c.csv" ] || complain "written from a damaged shard"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
