#!/usr/bin/env bash
# The frame of the command line, from outside: exit statuses, one-line errors with a hint, --help of every command, output
# that cannot be written, readers that go away.  What a command computes is tested elsewhere.
# Usage: test_cli.sh path/to/lapidary
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"

# expect STATUS WORD...: run lapidary WORD..., compare the exit status.  A failure is one line that begins "lapidary: ".
expect() {
    local want=$1 got
    shift
    "$lapidary" "$@" >"$out" 2>"$err" </dev/null
    got=$?
    if [ $got != "$want" ]; then
        complain "lapidary $*: status $got, $want expected"
    elif [ "$want" != 0 ] && { [ "$(wc -l <"$err")" != 1 ] || ! grep -q '^lapidary: ' "$err"; }; then
        complain "lapidary $*: not one line \"lapidary: ...\""
    elif [ "$want" = 2 ] && ! grep -q -- '--help`' "$err"; then
        complain "lapidary $*: no hint to --help"
    elif [ "$want" != 0 ] && [ -s "$out" ]; then
        complain "lapidary $*: failed, but printed a result"
    else
        good
    fi
}

says() { if grep -qF -- "$1" "$err"; then good; else complain "\"$1\" was expected on stderr"; fi; }
prints() { if grep -qF -- "$1" "$out"; then good; else complain "\"$1\" was expected on stdout"; fi; }

# ---- the program
expect 2
says "no command"
expect 0 --help
prints "Commands:"
expect 0 -h
expect 0 help
expect 0 --version
prints "lapidary 0."
expect 0 version
expect 2 version please
expect 2 help version extra
expect 2 xyzzy
says 'no command "xyzzy"'
expect 2 verison
says 'did you mean "version"?'
expect 2 --json
says "the command comes first"
expect 2 help xyzzy

# ---- every command
"$lapidary" --help | sed -nE '/^Commands:/,/^$/s/^  ([a-z-]+)  .*/\1/p' | grep -vxE 'help|version' >"$scratch/commands"
while read -r command; do
    expect 0 "$command" --help
    prints "Usage: lapidary $command"
    for option in model threads wave arithmetic kernels json quiet help; do prints "--$option"; done
    cp "$out" "$scratch/long"
    expect 0 "$command" -h
    expect 0 help "$command"
    if cmp -s "$out" "$scratch/long"; then good; else complain "help $command differs from $command --help"; fi
    awk 'length > 120' "$out" >"$scratch/wide"
    if [ -s "$scratch/wide" ]; then complain "$command --help: a line of more than 120 columns"; else good; fi

    expect 2 "$command" --no-such-option
    says "no option --no-such-option"
    expect 2 "$command" --threds 2
    says "did you mean --threads?"
    expect 2 "$command" -Z
    says "no option -Z"
    expect 2 "$command" --json=yes
    says "takes no value"
    expect 2 "$command" --threads
    says "needs a value"
    expect 2 "$command" --threads many
    says '--threads "many": a whole number expected'
    expect 2 "$command" --threads 2x
    expect 2 "$command" --threads -1
    says "from 0 to"
    expect 2 "$command" --threads 99999999999999999999
    expect 2 "$command" --wave 1.5
    expect 2 "$command" --arithmetic fine
    says "exact|fast expected"
    expect 2 "$command" --kernels abacus
    says '"abacus": this CPU runs c'
done <"$scratch/commands"

# Where a model is needed, its absence is said in one line.
if grep -qx info "$scratch/commands"; then
    expect 1 info -m "$scratch/nowhere"
    says nowhere
    expect 1 info -m no-such-owner/no-such-model
    says "hf download"
    expect 1 info -m "$0" # a file, but no model
    LAPIDARY_DATA=$scratch expect 1 info
    says "-m MODEL"
fi

# ---- output that goes nowhere
if [ -c /dev/full ]; then
    "$lapidary" --help >/dev/full 2>"$err"
    if [ $? = 1 ] && grep -q '^lapidary: cannot write to stdout: No space' "$err"; then good; else complain "--help >/dev/full"; fi
fi
"$lapidary" --help >&- 2>"$err"
if [ $? = 1 ] && grep -q '^lapidary: cannot write to stdout' "$err"; then good; else complain "--help >&-"; fi
"$lapidary" xyzzy 2>&-
if [ $? = 2 ]; then good; else complain "xyzzy 2>&-"; fi
if "$lapidary" --version <&- >"$out" 2>"$err"; then good; else complain "--version <&-"; fi

# A reader that is gone: no word, whether or not our parent ignores SIGPIPE.
mkfifo "$scratch/pipe"
for trap_it in '' 'trap "" PIPE;'; do
    : >"$err"
    head -c 0 "$scratch/pipe" &
    bash -c "$trap_it exec 3>'$scratch/pipe'; sleep 0.2; exec '$lapidary' --help >&3 2>'$err'"
    status=$?
    wait
    if [ $status != 0 ] && [ ! -s "$err" ]; then good; else complain "a reader that is gone: status $status"; fi
done

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 20 ]
