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

# What the tests of features, SAEs and stores say things with.
lap() { "$lapidary" "$@" -q 2>"$err" </dev/null; }
is() { if [ "$2" = "$3" ]; then good; else complain "$1: got \"${2:0:200}\", want \"${3:0:200}\""; fi; }
has() { if grep -qE -- "$3" <<<"$2"; then good; else complain "$1: no \"$3\" in \"${2:0:300}\""; fi; }
field() { python3 -c "import json,sys; print(eval(sys.argv[1], {'j': json.load(sys.stdin)}))" "$1"; }
# fails STATUS TEXT WORDS...: with that status, one line on stderr that has the text, and nothing on stdout.
fails() {
    local want=$1 says=$2
    shift 2
    lap "$@" >"$out"
    is "status of $*" "$?" "$want"
    has "stderr of $*" "$(cat "$err")" "$says"
    is "one line of $*" "$(wc -l <"$err")" 1
    is "nothing on stdout of $*" "$(cat "$out")" ""
}
