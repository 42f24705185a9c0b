#!/usr/bin/env bash
# The guard from outside: SAEs under wrong names, at wrong places, on another model; what is refused, warned of, remembered.
# Usage: test_guard.sh path/to/lapidary path/to/data
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"
lapidary=$(realpath "$lapidary") data=$2
export LC_ALL=C.UTF-8
unset LAPIDARY_DATA

# A copy of an embedded SAE's folder under another name.
copy() {
    mkdir -p "$scratch/saes/$2"
    cp "$data"/saes/"$1"/params.npz "$scratch/saes/$2/"
    echo "$scratch/saes/$2"
}

# ---- wrong names
early=$(copy res/layer_3/width_2k/average_l0_20 res/layer_2/width_2k/average_l0_20)
late=$(copy res/layer_2/width_2k/average_l0_20 res/layer_3/width_2k/average_l0_20)
site=$(copy mlp/layer_3/width_2k/average_l0_24 res/layer_3/width_2k/average_l0_24)
sparse=$(copy res/layer_4/width_2k/average_l0_20 res/layer_4/width_2k/average_l0_71)
coder=$(copy transcoder/layer_3/width_2k/average_l0_24 transcoder/layer_4/width_2k/average_l0_24)
fails 1 "2-.*L0 .*declared 20.*FVU .* on resid_post.2; resid_post.3 fits better .*FVU.*--unchecked" features -S "$early" "x"
fails 1 "resid_post.3; resid_(mid.3|post.2) fits better" rank -S "$late" "The whale swam in the"
fails 1 "on resid_post.3.*not the tensor" features -S "$site" "x"
fails 1 "declared 71.* on resid_post.4: not the tensor" features -S "$sparse" "x"
fails 1 "mlp_normed.4 to mlp_out.4; mlp_normed.3 to mlp_out.3 fits better" features -S "$coder" "x"
fails 1 "resid_post.3 fits better" steer -r sea -S "$early" "x"
fails 1 "resid_post.3 fits better" sweep -r sea -S "$early" "x"
fails 1 "resid_post.3 fits better" feature "$early" 5
fails 1 "resid_post.3 fits better" sae eval "$early"
fails 1 "reads rows of 192" features -m draft -S "$(copy res/layer_1/width_2k/average_l0_20 res/layer_1/width_2k/average_l0_20)" "x"
lap sae check "$early" 0-lapidary-res-2k >"$out"
is "status of sae check" "$?" 1
has "sae check has the figures" "$(cat "$out")" $'\tresid_post\t2\t[0-9]+\t20\t.*\tresid_post.3\t.*\twrong\t'
has "sae check of the others" "$(cat "$out")" $'^0-lapidary-res-2k\t.*\tok\t'
fails 2 "check --unchecked" sae check --unchecked "$early"

# ---- doubtful: used, and warned of every time
doubtful=(features -S 4-lapidary-res-2k --site resid_mid.5 --json "The whale")
for time in first second; do
    json=$(lap "${doubtful[@]}")
    has "the $time warning" "$(cat "$err")" "warning: 4-lapidary-res-2k: L0 .*resid_post.4 fits better"
    is "the $time mark" "$(field 'j["saes"][0]["check"]["verdict"], "fits better" in j["saes"][0]["check"]["why"]' <<<"$json")" "('doubtful', True)"
done

# ---- --unchecked
json=$(lap features --json --unchecked -S "$early" "The whale")
is "unchecked is used" "$?" 0
is "unchecked is marked" "$(field 'j["saes"][0]["check"], len(j["features"]) > 0' <<<"$json")" "(None, True)"
is "unchecked says nothing" "$(cat "$err")" ""
json=$(lap features --json --unchecked -S 0-lapidary-res-2k --site embed "The whale")
is "a site without a layer" "$(field '{f["layer"] for f in j["features"]}' <<<"$json")" "{None}"
is "none in the table" "$(lap features --unchecked -S 0-lapidary-res-2k --site embed "The whale" | tail -n +2 | cut -f 4,5 | sort -u)" $'\tembed'

# ---- what is remembered
cache=$XDG_CACHE_HOME/lapidary/checks.json
ok() { has "$1" "$("$lapidary" features -S 5-lapidary-res-2k --json "The whale" 2>"$err" </dev/null | field 'j["saes"][0]["check"]["verdict"]')" '^ok$'; }
looked() { grep -c "checking whether" "$err"; }
rm -f "$cache"
ok "measured" && is "the first time" "$(looked)" 1
is "a file of checks" "$(field 'j["format"], len(j["checks"])' <"$cache")" "('lapidary-checks', 1)"
ok "remembered" && is "the second time" "$(looked)" 0
echo '{"format": "lapi' >"$cache"
ok "damaged" && is "measured again" "$(looked)" 1
has "and said so" "$(cat "$err")" "unreadable, begun anew"
ok "mended" && is "mended" "$(looked)" 0
(
    export XDG_CACHE_HOME=/dev/null
    ok "nowhere to write"
    has "and said so" "$(cat "$err")" "not remembered"
    [ $failed = 0 ]
) || failed=$((failed + 1))

# ---- the user's text
head -c 600 "$data/check.txt" >"$scratch/text"
lap features -S 5-lapidary-res-2k --check-text "$scratch/text" "The whale" >"$out"
is "a text of one's own" "$?" 0
echo "Too short." >"$scratch/text"
fails 1 "too short to judge" features -S 5-lapidary-res-2k --check-text "$scratch/text" "x"
fails 1 "no/such" features -S 5-lapidary-res-2k --check-text "$scratch/no/such" "x"

# ---- a run of an unchecked SAE is repeated only unchecked
lap steer -r sea -n 3 --unchecked --site resid_post.2 --run "$scratch/run.json" "The whale" >"$out"
is "an unchecked run" "$?" 0
fails 1 "resid_post.3 fits better" replay "$scratch/run.json"
is "repeated" "$(lap replay --unchecked "$scratch/run.json" | head -n 1)" same

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 60 ]
