#!/usr/bin/env bash
# Lines run by the ordinary tests, per folder and for each file below 80 %, from gcov's own summaries of the .c files.
# Usage: coverage.sh SOURCE-FOLDER BUILD-FOLDER [GCOV]     (the target `coverage` of the preset of that name)
set -euo pipefail
source=$1 build=$2 gcov=${3:-gcov}

find "$build" -name '*.gcda' -delete
(cd "$source" && ctest --preset coverage --parallel "$(nproc)")
find "$build" -name '*.gcno' -not -path '*/tests/*' -print0 | sort -z |
    xargs -0 -n 1 "$gcov" --no-output --relative-only --source-prefix "$source" 2>/dev/null |
    awk -v q="'" '
        /^File / { split($0, part, q); file = part[2]; next }
        /^Lines executed:/ && file ~ /\.c$/ {
            sub(/^Lines executed:/, ""); split($0, n, /% of /)
            run = n[1] * n[2] / 100
            folder = file; sub(/\/[^\/]*$/, "", folder)
            lines[folder] += n[2]; hit[folder] += run; all += n[2]; all_hit += run
            if (n[1] < 80) low[file] = sprintf("%6.1f %%  %6d lines  %s", n[1], n[2], file)
        }
        { file = "" }
        END {
            for (f in low) print low[f]
            print "per folder:"
            for (f in lines) printf "%6.1f %%  %6d lines  %s/\n", 100 * hit[f] / lines[f], lines[f], f
            if (all) printf "%6.1f %%  %6d lines  all\n", 100 * all_hit / all, all
            exit !all
        }'
