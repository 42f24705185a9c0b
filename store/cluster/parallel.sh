#!/usr/bin/env bash
# parallel.sh - a whole run without a scheduler: GNU parallel on this machine, or by ssh on those of a list.
#
#     CORPUS=/data/c.jsonl STORE=/data/store ./parallel.sh 8 [--sshloginfile HOSTS] [OPTION-OF-PARALLEL]...
#
# The variables are those of extract.sbatch; all machines see the same paths.  The same line again goes on: parts that
# ended well are left out, the others go on behind their last sealed shard.
set -euo pipefail
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || { echo "Usage: CORPUS=... STORE=... ${0##*/} PARTS [OPTION]..." >&2 && exit 2; }
parts=$1
shift
: "${CORPUS:?a text file, a .jsonl file, or a folder of them}" "${STORE:?the folder of the store}"

read -ra options <<<"${OPTIONS:-}"
command=("${LAPIDARY:-lapidary}" extract "$CORPUS" --store "$STORE" "${options[@]}")
[ -z "${MODEL:-}" ] || command+=(--model "$MODEL")
for sae in ${SAES:-}; do command+=(--sae "$sae"); done

mkdir -p "$STORE"
seq 0 $((parts - 1)) |
    parallel --joblog "$STORE/parallel-$parts.log" --resume-failed --retries 3 --line-buffer --quote --jobs 1 "$@" \
        "${command[@]}" --part "{}/$parts"
