#!/usr/bin/env bash
# submit.sh - a whole run on a Slurm cluster: an array of tasks, and after them, all well, what one process does alone.
#
#     CORPUS=/data/c.jsonl STORE=/data/store MODEL=google/gemma-2-2b SAES="..." ./submit.sh 64 [SBATCH-OPTION]...
#
# The variables are those of extract.sbatch.  Prints the array's job id.
set -euo pipefail
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || { echo "Usage: CORPUS=... STORE=... ${0##*/} TASKS [SBATCH-OPTION]..." >&2 && exit 2; }
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")") lapidary=${LAPIDARY:-lapidary} tasks=$1
shift
: "${CORPUS:?a text file, a .jsonl file, or a folder of them}" "${STORE:?the folder of the store}"

array=$(sbatch --parsable --array="0-$((tasks - 1))" "$@" "$here/extract.sbatch")
array=${array%%;*} # behind it, the cluster's name

# afterwards COMMAND: `lapidary COMMAND STORE` on one node
afterwards() {
    local words
    printf -v words '%q ' "$lapidary" "$1" "$STORE"
    sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes --job-name="lapidary-$1" --requeue \
        --output="$1-%j.log" --wrap "exec $words" >/dev/null
}
# Workers write shards and nothing else; the catalogue and the view of the whole have one writer, and it comes last.
for command in index merge; do
    if "$lapidary" help "$command" >/dev/null 2>&1; then afterwards "$command"; fi
done
echo "$array"
