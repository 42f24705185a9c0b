#!/usr/bin/env bash
# Extraction by GNU parallel: killed in the middle with its workers, the same line goes on to the bytes of a plain run.
# Usage: test_parallel.sh path/to/lapidary path/to/data.  77: it is not installed (apt-get install parallel).
command -v parallel >/dev/null || { echo "skipped: no parallel" && exit 77; }
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"
script=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../store/cluster/parallel.sh")
lapidary=$(realpath "$lapidary") data=$(realpath "$2")
export LC_ALL=C.UTF-8 PARALLEL_HOME=$scratch/parallel

head -n 12 "$data/demo.jsonl" >"$scratch/corpus.jsonl"
export CORPUS=$scratch/corpus.jsonl STORE="$scratch/a store" SAES=3-lapidary-res-2k LAPIDARY=$lapidary
export OPTIONS="--shard-tokens 600 --threads 1"
"$lapidary" extract "$CORPUS" -S $SAES --store "$scratch/whole" --shard-tokens 600 -q >/dev/null 2>"$err" </dev/null ||
    complain "a plain run fails"
bytes_of() { (cd "$1"/runs/* && find . \( -name 'shard-*' -o -name run.json -o -name plan.jsonl \) -print0 | sort -z | xargs -0 sha256sum); }
shards() { find "$1" -name 'shard-*.h5' 2>/dev/null | wc -l; }

setsid "$script" 4 --jobs 2 >"$out" 2>"$err" & # a session of its own, to be killed as one
for ((i = 0; i < 600; i++)); do
    [ "$(shards "$STORE")" = 0 ] || break
    sleep 0.05
done
kill -KILL -- -$! 2>/dev/null
wait $! 2>/dev/null
# parallel's jobs lead groups of their own
for p in $(pgrep -f -- "--store $STORE --threads 1"); do kill -KILL "$p" 2>/dev/null; done
n=$(shards "$scratch/whole")
if [ "$(shards "$STORE")" -lt "$n" ]; then good; else complain "killed too late: all $n shards were there"; fi
"$script" 4 --jobs 2 >"$out" 2>"$err" || complain "the same line does not go on"
if [ "$(bytes_of "$STORE")" = "$(bytes_of "$scratch/whole")" ]; then good; else complain "other bytes than a plain run"; fi
"$script" 4 --jobs 2 >"$out" 2>"$err" || complain "once more"
if [ ! -s "$out" ]; then good; else complain "what is done is done again: $(head -n 2 "$out")"; fi
"$script" 2>"$err" >"$out"
if [ $? = 2 ]; then good; else complain "no number of parts"; fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
