#!/usr/bin/env bash
# Extraction, killed and cut off in every way there is: what comes out in the end are the bytes of a run that nobody touched.
# Usage: test_extract.sh path/to/lapidary path/to/data
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"
lapidary=$(realpath "$lapidary") data=$(realpath "$2")
export LC_ALL=C.UTF-8

corpus=$scratch/corpus.jsonl
head -n 12 "$data/demo.jsonl" >"$corpus"
for _ in 1 2 3 4 5 6; do echo '{"text": "A short one, said the king.", "source": "short"}'; done >>"$corpus"
echo '{"text": "", "source": "empty"}' >>"$corpus"
saes=(-S 3-lapidary-res-2k -S 3-lapidary-transcoder-2k)
job=(extract "$corpus" "${saes[@]}" --shard-tokens 1500 --dense resid_mid.2 --dense-type bf16)

runs() { find "$1/runs" -maxdepth 1 -mindepth 1 -type d; }
# The files of a run that count, with their bytes.
bytes_of() { (cd "$(runs "$1")" && find . -maxdepth 1 \( -name 'shard-*' -o -name '*.json*' \) -not -name budget.json -not -name '*.tmp' -print0 | sort -z | xargs -0 sha256sum); }
same() { if [ "$(bytes_of "$2")" = "$(bytes_of "$scratch/whole")" ]; then good; else complain "$1: other bytes than the whole run"; fi; }
fails() { # what, text, words...
    local what=$1 text=$2 status=0
    shift 2
    lap "$@" >"$out" || status=$?
    if [ $status -ne 0 ] && [ $status -lt 126 ] && [ "$(wc -l <"$err")" = 1 ] && grep -qE -- "$text" "$err"; then good; else
        complain "$what: status $status, wanted one line with \"$text\""; fi
}

# ---- one run that nobody touches
lap "${job[@]}" --store "$scratch/whole" >"$out" || complain "a plain run fails"
n=$(find "$(runs "$scratch/whole")" -name 'shard-*.h5' | wc -l)
if [ "$n" -ge 5 ]; then good; else complain "only $n shards"; fi
same "the same again" "$scratch/whole"
lap "${job[@]}" --store "$scratch/whole" --json >"$out"
has "nothing was left to do" "$(cat "$out")" '"made": 0'

# ---- however it is computed
lap "${job[@]}" --store "$scratch/one" --threads 1 --wave 37 >"$out" && same "one thread, waves of 37" "$scratch/one"
lap "${job[@]}" --store "$scratch/parts" --part 1/2 >"$out" &
lap "${job[@]}" --store "$scratch/parts" --part 0/2 >"$out.0"
wait
same "two parts side by side" "$scratch/parts"
lap "${job[@]}" --store "$scratch/twice" >"$out" &
lap "${job[@]}" --store "$scratch/twice" >"$out.0"
wait
same "two workers on the same shards" "$scratch/twice"

# ---- killed at random moments, until it is done
kills=0 limit=${LAPIDARY_KILLS:-12}
for ((i = 0; i < limit; i++)); do
    { timeout -s KILL "0.$((RANDOM % 70 + 15))" "$lapidary" "${job[@]}" -q --store "$scratch/killed" </dev/null && break; } >/dev/null 2>&1
    kills=$((kills + 1))
done
for ((i = 0; i < 3; i++)); do # and by what asks politely
    timeout -s TERM "0.$((RANDOM % 50 + 20))" "$lapidary" "${job[@]}" -q --store "$scratch/killed" >/dev/null 2>&1 </dev/null
done
lap "${job[@]}" --store "$scratch/killed" >"$out" || complain "it does not go on after $kills kills"
same "killed $kills times" "$scratch/killed"
for ((i = 0; i < 20; i++)); do # who was killed is dead at once, but may wait to be buried
    find "$scratch/killed" -name '*.part' | grep -q . || break
    sleep 1
    lap "${job[@]}" --store "$scratch/killed" >"$out"
done
if find "$scratch/killed" -name '*.part' | grep -q .; then complain "a .part is left behind"; else good; fi

# ---- files that changed on the disk
run=$(runs "$scratch/one")
chmod u+w "$run"/shard-*
truncate -s -1000 "$run/shard-000001.h5"
printf x | dd of="$run/shard-000002.h5" bs=1 seek=20000 conv=notrunc 2>/dev/null
rm "$run/shard-000003.h5.xxh3"
: >"$run/shard-000004.h5"
"$lapidary" "${job[@]}" --store "$scratch/one" >"$out" 2>"$err" </dev/null || complain "damaged shards stop it"
has "each is named" "$(grep -c 'quarantine/shard-00000[1-4]' "$err")" '^4$'
same "damaged shards are made again" "$scratch/one"

# ---- no room
(
    ulimit -f 40
    trap '' XFSZ
    "$lapidary" "${job[@]}" -q --store "$scratch/full" >"$out" 2>"$err" </dev/null
) && complain "no error when the disk is full"
if [ "$(wc -l <"$err")" = 1 ] && ! find "$scratch/full" -name 'shard-*.h5' | grep -q .; then good; else complain "the full disk"; fi
lap "${job[@]}" --store "$scratch/full" >"$out" && same "then there is room" "$scratch/full"

# ---- another model, another SAE, another corpus
lap "${job[@]}" --store "$scratch/part" --part 0/3 >"$out"
other=(extract "$corpus" --shard-tokens 1500 --dense resid_mid.2 --dense-type bf16 --store "$scratch/part")
fails "another SAE" "not finished .* another list of SAEs" "${other[@]}" -S 2-lapidary-res-2k
fails "another arithmetic" "another arithmetic \(exact there, fast now\)" "${job[@]}" --store "$scratch/part" --arithmetic fast
fails "another model" "another model" "${job[@]}" --store "$scratch/part" -m chat --unchecked
fails "another cutting" "another corpus or cutting" "${job[@]}" --store "$scratch/part" --context 64
if lap "${other[@]}" -S 2-lapidary-res-2k --part 0/3 --new >"$out"; then good; else complain "--new"; fi
cp "$corpus" "$scratch/kept"
echo '{"text": "One more."}' >>"$corpus"
fails "a corpus that grew" "another corpus or cutting" "${job[@]}" --store "$scratch/part"
mv "$scratch/kept" "$corpus"
lap "${job[@]}" --store "$scratch/whole" --dry-run --json >"$out"
has "a prediction" "$(cat "$out")" '"disk": [0-9]{5,}'
if find "$scratch/whole" -name '.sample*' | grep -q .; then complain "a sample is left behind"; else good; fi

# ---- typed wrong
fails "no corpus" "No such file|no such" extract "$scratch/nothing" --store "$scratch/x"
fails "no store" "--store DIR" extract "$corpus"
fails "a file for a store" "something else is there|cannot make" extract "$corpus" "${saes[@]}" --store "$corpus"
fails "part 3 of 3" "expected I/N" extract "$corpus" --store "$scratch/x" --part 3/3
fails "nothing asked" "nothing to extract" extract "$corpus" --store "$scratch/x" --no-saes
fails "a site without a layer" "which layer" extract "$corpus" --store "$scratch/x" --dense resid_post
fails "a site that is too wide" "cannot be stored" extract "$corpus" --store "$scratch/x" --dense pattern.1
fails "a window that is too long" "positions" extract "$corpus" --store "$scratch/x" --context 4000
if [ -e "$scratch/x" ]; then complain "a store appears where nothing was extracted"; else good; fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
