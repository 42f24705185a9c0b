#!/usr/bin/env bash
# A store from outside: extract, index, look after, query; tables and JSON; what was typed wrong.
# Usage: test_store.sh path/to/lapidary path/to/data
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"
lapidary=$(realpath "$lapidary") data=$2
export LC_ALL=C.UTF-8
unset LAPIDARY_DATA
s=$scratch/store sae=3-lapidary-res-2k

# ---- before there is anything
fails 1 "no such folder" query "$scratch/none" text whale
fails 1 "no such folder" index "$scratch/none"
mkdir "$s"
fails 1 "no store of activations; lapidary extract makes one" index "$s"
rm -f "$s"/catalog.sqlite*
fails 1 "no catalogue here; lapidary index" query "$s" text whale

# ---- a small one
head -n 6 "$data/demo.jsonl" >"$scratch/corpus.jsonl"
lap extract -o "$s" --unchecked -S "$sae" -S 5-lapidary-res-2k --context 64 --shard-tokens 512 "$scratch/corpus.jsonl" >"$out"
is "status of extract" "$?" 0
run=$(basename "$s"/runs/*)
n=$(find "$s/runs/$run" -name 'shard-*.h5' | wc -l)
json=$(lap index "$s" --json)
is "index" "$(field 'j[0]["shards"], j[0]["added"], j[0]["labels"] > 1000' <<<"$json")" "($n, $n, True)"
is "index again" "$(lap index "$s" --json | field 'j[0]["added"], j[0]["labels"]')" "(0, 0)"
is "index anew" "$(lap index "$s" --rebuild --json | field 'j[0]["added"], j[0]["labels"]')" "($n, 0)"
json=$(lap store info "$s" --json)
is "info" "$(field 'j[0]["run"], j[0]["shards"] == j[0]["planned_shards"], j[0]["tokens"] == j[0]["planned_tokens"], j[0]["documents"]' <<<"$json")" "('$run', True, True, 6)"
json=$(lap store info "$s" --saes --json)
is "info --saes" "$(field '[x["sae"] for x in j], j[0]["labels"] > 1000, 10 < j[0]["l0"] < 40' <<<"$json")" "(['$sae', '5-lapidary-res-2k'], True, True)"
is "verify" "$(lap store verify "$s" | tail -n +2 | cut -f 3 | sort -u)" ok

# ---- queries hang together
json=$(lap query "$s" labels "ship*" -k 0 --json)
has "labels" "$(field 'j[0]["label"]' <<<"$json")" "ship"
is "every label has the word" "$(field 'all("ship" in x["label"] for x in j), len(j) > 2' <<<"$json")" "(True, True)"
busy=$(lap query "$s" active the -k 0 --json | field "max((x for x in j if x['sae'] == '$sae'), key=lambda x: x['active'])['index']")
json=$(lap query "$s" feature "$sae" "$busy" --quantiles 2 --json)
active=$(field 'int([x for x in j if x["what"] == "active"][0]["value"])' <<<"$json")
is "the bins add up" "$(field 'sum(x["value"] for x in j if x["what"] == "bin")' <<<"$json")" "$active"
is "the strongest is the maximum" "$(field 'max(x["value"] for x in j if x["what"] == "top") == [x for x in j if x["what"] == "max"][0]["value"]' <<<"$json")" True
is "all fifths" "$(field 'sorted({x["rank"] for x in j if x["what"] == "fifth"})[0]' <<<"$json")" 1
has "the peak is marked" "$(lap query "$s" feature "$sae" "$busy" | grep '^top' | head -n 1)" '>>.*<<'
has "the bars" "$(lap query "$s" feature "$sae" "$busy")" $'^bin\t.*####'
is "all positions" "$(lap query "$s" positions "$sae" "$busy" -k 0 | tail -n +2 | wc -l)" "$active"
is "fires" "$(lap query "$s" where "$sae:$busy" -k 0 | tail -n +2 | wc -l)" "$active"
above=$(lap query "$s" positions "$sae" "$busy" --above 2 -k 0 | tail -n +2 | wc -l)
is "above" "$(lap query "$s" where "$sae:$busy > 2" -k 0 | tail -n +2 | wc -l)" "$above"
is "not above" "$(lap query "$s" where "$sae:$busy and not $sae:$busy > 2" -k 0 | tail -n +2 | wc -l)" $((active - above))
the=$(lap query "$s" where 'token " the"' -k 0 | tail -n +2)
is "a token is marked" "$(grep -c '>> the<<' <<<"$the")" "$(wc -l <<<"$the")"
lap query "$s" where 'token " the" after 1' -k 0 >"$out"
has "after" "$(cat "$out")" '<< the'
"$lapidary" query "$s" where "$sae:$busy" -k 1 >"$out" 2>"$err" </dev/null
has "says how many there are" "$(cat "$err")" "1 of $active places"
at=$(lap query "$s" positions "$sae" "$busy" -k 1 --json | field 'j[0]["token"]')
json=$(lap query "$s" active --position "$at" --json)
is "one position" "$(field "$busy in [x['index'] for x in j if x['sae'] == '$sae']" <<<"$json")" True
json=$(lap query "$s" partners "$sae" "$busy" --with all --sample 50 --json)
is "partners" "$(field 'len(j) > 3, all(x["of"] <= 50 for x in j), {x["sae"] for x in j} == {"'$sae'", "5-lapidary-res-2k"}' <<<"$json")" "(True, True, True)"
is "not with itself" "$(field "any(x['sae'] == '$sae' and x['index'] == $busy for x in j)" <<<"$json")" False
json=$(lap query "$s" text whale --json)
key=$(field 'j[0]["key"]' <<<"$json")
has "text" "$(field 'j[0]["text"]' <<<"$json")" '\[[Ww]hale\]'
is "a document" "$(lap query "$s" document "$key" --json | field 'len(j) > 100, {x["sae"] for x in j} == {"'$sae'", "5-lapidary-res-2k"}')" "(True, True)"
lap query "$s" text "whale" --run "${run:0:6}" >"$out"
is "a run by its beginning" "$?" 0
lap query "$s" feature "$sae" "$busy" -m draft >"$out"
is "another tokenizer" "$?" 0

# ---- typed wrong
fails 2 'did you mean "feature"' query "$s" featur "$sae" 1
fails 2 "query STORE feature SAE INDEX expected" query "$s" feature "$sae"
fails 2 "a number from 0 on" query "$s" feature "$sae" x
fails 1 "feature 2048; $sae has 0 to 2047" query "$s" feature "$sae" 2048
fails 1 "no SAE \"none\" in this run; it has $sae, 5-lapidary-res-2k" query "$s" feature none 1
fails 1 "column 1: no SAE" query "$s" where "none:1"
fails 1 "column $((${#sae} + 7)): " query "$s" where "$sae:1 and"
fails 1 "not one token of the vocabulary" query "$s" where 'token "no such piece at all"'
fails 1 "no document \"none\"" query "$s" document none
fails 1 "no shard of this run" query "$s" active --position 99999999
fails 2 "a token, or --position" query "$s" active
fails 1 "not one run that begins with \"zz\"" query "$s" text whale --run zz
fails 2 'did you mean "info"' store inf "$s"
fails 1 "no folder in it is called" index "$s" --labels "$scratch"

# ---- damage
file=$(printf "%s/shard-%06d.h5" "$s/runs/$run" 1)
cp "$file" "$scratch/kept"
chmod u+w "$file"
printf 'x' | dd of="$file" bs=1 seek=5000 conv=notrunc status=none
lap store verify "$s" >"$out"
is "status of verify" "$?" 1
is "the damaged one" "$(grep damaged "$out" | cut -f 2)" 1
has "what to do" "$(cat "$err")" "--repair"
fails 1 "not the file that was taken in" query "$s" where "$sae:$busy"
lap store verify "$s" --repair >"$out"
is "status of verify --repair" "$?" 1
is "put away" "$(find "$s/runs/$run/quarantine" -type f | wc -l)" 1
fails 1 "missing" query "$s" where "$sae:$busy"
lap extract -o "$s" --unchecked -S "$sae" -S 5-lapidary-res-2k --context 64 --shard-tokens 512 "$scratch/corpus.jsonl" >"$out"
is "made again" "$(cmp "$file" "$scratch/kept" && echo same)" same
lap index "$s" >"$out"
is "verify again" "$(lap store verify "$s" | tail -n +2 | cut -f 3 | sort -u)" ok
is "and all is there" "$(lap query "$s" where "$sae:$busy" -k 0 | tail -n +2 | wc -l)" "$active"
echo "no database" >"$s/catalog.sqlite"
fails 1 "damaged" query "$s" text whale
lap index "$s" --rebuild >"$out"
is "made anew" "$(lap query "$s" where "$sae:$busy" -k 0 | tail -n +2 | wc -l)" "$active"

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 90 ]
