# cli_lib.sh - sourced by the tests that run the program from outside: a scratch folder, counters, a way to complain.
# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by whoever sources it
set -uo pipefail
lapidary=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
out=$scratch/out err=$scratch/err
passed=0 failed=0
export XDG_DATA_HOME=$scratch/data # own labels are there
export XDG_CACHE_HOME=$scratch/cache # checks of SAEs are remembered there

complain() {
    echo "$*" >&2
    [ ! -s "$err" ] || sed 's/^/    stderr: /' "$err" | head -n 5 >&2
    failed=$((failed + 1))
}

good() { passed=$((passed + 1)); }
