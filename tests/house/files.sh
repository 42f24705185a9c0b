# shellcheck shell=bash
# files.sh - sourced by the tests of this folder: which files are the house's, and how a finding is reported.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
failed=0

# Everything a clone holds (and what is new and not ignored); without git, what lies here and is no build.
all_files() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard | while read -r f; do [ -f "$f" ] && echo "$f"; done
    else
        find . -type f -not -path './build*' -not -path './.git/*' | sed 's|^\./||'
    fi
}

sources() { all_files | grep -E '\.[ch]$'; }

complain() {
    echo "$*" >&2
    failed=1
}

done_checking() {
    [ "$1" -gt 0 ] || { echo "nothing was checked" >&2; exit 1; }
    echo "$1 files checked"
    exit $failed
}
