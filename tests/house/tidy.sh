#!/usr/bin/env bash
# Every test is run, no file is too long to read, none is without a word about what it is, no mark of unfinished work, no path of somebody's machine,
# no trailing blank, and shell scripts that shellcheck (when it is here) has nothing to say about.
. "$(dirname "$0")/files.sh"
marks='(^|[^A-Za-z])(TO''DO|FIX''ME|X''XX|HA''CK)([^A-Za-z]|$)|not impl''emented'
paths='(^|[^A-Za-z0-9_.}])/(ho''me|ro''ot|op''t|wo''rk|Us''ers)/[A-Za-z0-9]'
one_run='(^|[^A-Za-z0-9_.}])/t''mp/[A-Za-z0-9]|"execution": [{]|"output_type": "error"' # in a notebook: scratch, times, errors

# A picture in a notebook is letters by chance.
text() {
    case $1 in
    *.ipynb) sed '/"image\/png": "/d' "$1" ;;
    *) cat "$1" ;;
    esac
}

n=0
while read -r file; do
    grep -qI . "$file" || continue # binary, or empty
    case $file in LICENSE | data/* | tests/goldens/*.json | tests/goldens/*/*) continue ;; esac
    n=$((n + 1))
    found=$(text "$file" | grep -nE "$marks" | head -n 3 || true)
    [ -z "$found" ] || complain "$file: unfinished: $found"
    found=$(text "$file" | grep -nE "$paths" | head -n 3 || true)
    [ -z "$found" ] || complain "$file: a path of one machine: $found"
    found=$(grep -nE '[[:blank:]]$' "$file" | head -n 3 || true)
    [ -z "$found" ] || complain "$file: blanks at the end of a line: $found"
    case $file in
    *.ipynb)
        found=$(text "$file" | grep -nE "$one_run" | head -n 3 || true)
        [ -z "$found" ] || complain "$file: of one run: $found"
        ;;
    esac
    case $file in
    *.c | *.h | *.py | *.sh | quickstart)
        lines=$(wc -l <"$file")
        [ "$lines" -le 600 ] || complain "$file: $lines lines, 600 are allowed"
        ;;
    esac
    case $file in
    *.c | *.h) head -c 2 "$file" | grep -q '^/\*' || complain "$file: does not begin with what it is" ;;
    esac
    case $file in
    *.sh | quickstart | .ci/run)
        if command -v shellcheck >/dev/null; then
            shellcheck -x -P SCRIPTDIR "$file" || complain "$file: shellcheck"
        fi
        ;;
    esac
done < <(all_files)

# A test or fuzzer that exists is run: a file forgotten in CMakeLists.txt would look like a passing one.
if [ -f tests/CMakeLists.txt ]; then
    while read -r file; do
        name=$(sed -E 's#.*/(test|fuzz)_(.*)\.c#\2#' <<<"$file")
        grep -qE "^(lp_test|lp_fuzz)\\($name( |\\))" tests/CMakeLists.txt || complain "$file: not in tests/CMakeLists.txt"
    done < <(sources | grep -E '^tests/(fuzz/fuzz|test)_[a-z0-9_]+\.c$' || true)
fi
[ ! -f README.md ] || [ "$(wc -l <README.md)" -le 250 ] || complain "README.md: more than 250 lines"
done_checking $n
