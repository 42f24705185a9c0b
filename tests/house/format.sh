#!/usr/bin/env bash
# clang-format, version 14 (Debian 12's), finds nothing to change.  To mend: clang-format-14 -i FILE
. "$(dirname "$0")/files.sh"
mapfile -t files < <(sources)
for file in "${files[@]}"; do
    "$1" --dry-run --Werror --style=file "$file" 2>/dev/null || complain "$file: run clang-format-14 -i $file"
done
done_checking ${#files[@]}
