#!/usr/bin/env bash
# Every public header compiles alone, without a warning, and guards itself: LP_CORE_BASE_H for core/base.h.
# Usage: headers.sh COMPILER [FLAG]...
. "$(dirname "$0")/files.sh"
strict=(-std=c17 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Werror -fsyntax-only)

n=0
while read -r header; do
    n=$((n + 1))
    guard=LP_$(tr 'a-z/.-' 'A-Z___' <<<"$header")
    grep -qx "#ifndef $guard" "$header" || complain "$header: no guard $guard"
    "$@" "${strict[@]}" -I . -x c - <<<"#include \"$header\"
#include \"$header\"
extern int lp_not_empty;" || complain "$header: does not compile alone"
done < <(sources | grep '\.h$' | grep -v '^tests/') # the tests' own headers want their build's paths
done_checking $n
