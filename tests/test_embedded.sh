#!/usr/bin/env bash
# The embedded models and their SAEs as a fresh clone has them: every command finds them without being told, under the names
# the README gives, and what they show is the same however it was come by.
# Usage: test_embedded.sh path/to/lapidary path/to/data
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"
lapidary=$(realpath "$lapidary") data=$2
export LC_ALL=C.UTF-8
unset LAPIDARY_DATA

# ---- models
has "the default model" "$(lap info)" $'^path\t.*/data/base$'
for name in base draft; do has "-m $name" "$(lap info -m $name)" $"^path	.*/data/$name\$"; done
for name in chat shield; do has "-m $name" "$(lap info -m $name)" $"^path	.*/data/$name.gguf\$"; done
for name in base chat draft shield; do
    info=$(lap info -m $name --check)
    has "$name has a tokenizer" "$info" $'^tokenizer_pieces\t8192$'
    has "$name has a window below its context" "$info" $'^window\t128$'
    has "$name is finite" "$info" $'^nonfinite_weights\t0$'
done
is "the same tokenizer in both containers" "$(lap tokenize -m chat "The 3 whales, <b>said</b> Élise.")" \
    "$(lap tokenize -m base "The 3 whales, <b>said</b> Élise.")"
mkdir "$scratch/base"
is "a folder of that name comes first" "$(cd "$scratch" && lap info -m base >/dev/null; grep -c "config.json" "$err")" 1
has "text that is no noise" "$(lap generate -n 30 "And the LORD said unto")" '[a-z]+ [a-z]+'
is "generate --chat talks to the chat model" "$(lap generate --chat -n 12 "Who are you?")" \
    "$(lap generate --chat -n 12 -m chat "Who are you?")"
has "chat ends its turn" "$(lap generate --chat -n 100 --json "Who are you?")" '"finish": "stop_token"'

# ---- features
table=$(lap features --top 1 "The whale is in the sea.")
is "the columns" "$(head -n 1 <<<"$table")" $'pos\tid\tpiece\tlayer\tsite\tsae\tindex\tactivation\tlabel'
is "every SAE saw the text" "$(tail -n +2 <<<"$table" | cut -f 6 | sort -u | tr '\n' ' ')" "0-lapidary-res-2k 1-lapidary-res-2k \
2-lapidary-res-2k 3-lapidary-att-2k 3-lapidary-mlp-2k 3-lapidary-res-2k 3-lapidary-transcoder-2k 4-lapidary-res-2k 5-lapidary-res-2k "
is "<bos> is left out" "$(cut -f 1 <<<"$table" | grep -cx 0)" 0
is "unless asked for" "$(lap features --bos --top 1 -S 3-lapidary-res-2k "The whale" | cut -f 1 | grep -cx 0)" 1
has "there are labels" "$(lap features -S 3-lapidary-res-2k --top 0 "The whale is in the sea, said the king.")" $'\t[0-9.]+\t[a-z]+ .*"'
all=$(lap features --json --top 0 -S 3-lapidary-res-2k "The whale is in the sea.")
some=$(lap features --json --top 3 -S 3-lapidary-res-2k "The whale is in the sea.")
is "the best of each token" "$(field 'len(j["features"]) == 3 * (len(j["tokens"]) - 1)' <<<"$some")" True
is "all that fire" "$(field 'all(f["activation"] > 0 for f in j["features"]) and len(j["features"]) > 3 * (len(j["tokens"]) - 1)' <<<"$all")" True
head -c 1200 "$data/check.txt" >"$scratch/text"
is "by text, each feature once" "$(lap features --by text --top 50 -S 5-lapidary-res-2k -f "$scratch/text" --json |
    field 'len({f["index"] for f in j["features"]}) == len(j["features"]) == 50')" True

# What was generated has the features it has as a prompt; cut anywhere, on any threads.
said=$(lap features --json --top 0 -n 20 -S 2-lapidary-res-2k -S 3-lapidary-transcoder-2k "Once upon a time")
ids=$(field '",".join(str(t["id"]) for t in j["tokens"])' <<<"$said")
read_again=$(lap features --json --top 0 --tokens "$ids" --wave 3 --threads 1 -S 2-lapidary-res-2k -S 3-lapidary-transcoder-2k)
is "generated as prompted" "$(field '(len(j["tokens"]), j["features"])' <<<"$said")" "$(field '(len(j["tokens"]), j["features"])' <<<"$read_again")"

# ---- attribution
attributed=$(lap attribute --json --top 0 "The whale swam in the" --target " sea" --contrast " house")
is "shares come to the site" "$(field 'all(abs(s["features_logit"] + s["bias_logit"] + s["error_logit"] - s["site_logit"]) < 1e-4
    for s in j["saes"]) and len(j["saes"]) == 9' <<<"$attributed")" True
is "the last stream is the difference" "$(field 'abs([s["site_logit"] for s in j["saes"] if s["sae"] == "5-lapidary-res-2k"][0] -
    j["target"]["logit_raw"] + j["contrast"]["logit_raw"]) < 1e-4' <<<"$attributed")" True
is "the largest first" "$(field '(lambda x: x == sorted(x, reverse=True))([abs(f["logit"]) for f in j["features"]])' <<<"$attributed")" True
table=$(lap attribute --top 3 "The whale swam in the" --target " sea" -S 3-lapidary-res-2k)
is "a table of it" "$(cut -f 1 <<<"$table" | tr '\n' ' ')" "what feature feature feature features bias error site "

# ---- whole dictionaries: as `lapidary feature` has them of one
of_one() { lap feature --json --top 5 "$1" 473 | field "[(r['id'], r['name']) for r in j if r['what'] == '$2']"; }
effects=$(lap sae effects 3-lapidary-att-2k --top 5 --json)
is "what 473 promotes" "$(field '[(r["id"], r["promotes"]) for r in j if r["index"] == 473]' <<<"$effects")" "$(of_one 3-lapidary-att-2k promotes)"
is "and suppresses" "$(field '[(r["suppressed_id"], r["suppresses"]) for r in j if r["index"] == 473]' <<<"$effects")" \
    "$(of_one 3-lapidary-att-2k suppresses)"
is "every feature has its five" "$(field 'len(j)' <<<"$effects")" 10240
is "with the gain" "$(lap sae effects 3-lapidary-att-2k --top 5 --gained --json |
    field '[(r["id"], r["promotes"]) for r in j if r["index"] == 473]')" "$(of_one 3-lapidary-att-2k promotes_gained)"
is "whom 473 is near" "$(lap sae nearest 3-lapidary-res-2k --top 5 | awk '$1 == 473 { print $3 }' | paste -sd ,)" \
    "$(lap feature --top 5 3-lapidary-res-2k 473 | awk '$1 == "near" { print $3 }' | paste -sd ,)"
table=$(lap sae nearest 3-lapidary-res-2k 5-lapidary-res-2k --top 2 --sample 4)
is "the columns" "$(head -n 1 <<<"$table")" $'index\trank\tnear\tcosine\tlabel\tnear_label'
is "a sample" "$(tail -n +2 <<<"$table" | cut -f 1,2 | tr '\t\n' ', ')" "0,1 0,2 512,1 512,2 1024,1 1024,2 1536,1 1536,2 "

# ---- what must be refused
fails 1 "not among the SAEs .*5-lapidary-res-2k" features -S 9-lapidary-res-2k "x"
fails 1 "hf download google/gemma-scope-2b-pt-res layer_20/width_16k/average_l0_71/params.npz" \
    features -S gemma-2-2b/20-gemmascope-res-16k "x"
fails 2 "no SAE named" features -m draft "x"
fails 1 "192 wide|rows of 192|reads rows" features -m draft -S 1-lapidary-res-2k "x"
fails 1 "layers 0 to 1" features -m draft -S 3-lapidary-res-2k "x"
fails 1 "no such folder" features --labels "$scratch/none" "x"
fails 2 "--target: .* tokens" attribute --target " the whale" "x"
for command in lens rank; do fails 2 "--target: .* is 2 tokens" "$command" --target " the whale" "x"; done
fails 2 "--contrast: .* tokens" attribute --contrast " the whale" "x"
fails 1 "target and contrast are one token" attribute --target " sea" --contrast " sea" "x"
fails 1 "<bos>" attribute --at 0 "x"
fails 2 "nearest: one SAE or two, 0 were named" sae nearest
fails 2 "effects: one SAE, 2 were named" sae effects 3-lapidary-res-2k 5-lapidary-res-2k
fails 2 "which layer" features --site resid_post -S 3-lapidary-res-2k "x"

# ---- the rest of data/
for recipe in "$data"/steering/*.json; do
    case $recipe in */effects.json) continue ;; esac
    is "$recipe" "$(field 'j["format"], j["features"][0]["kind"]' <"$recipe")" "('lapidary-recipe', 'clamp')"
done
is "a dozen prompts" "$(field 'len(j) >= 12 and all({"title", "prompt", "about"} <= set(p) for p in j)' <"$data/prompts.json")" True
bytes=$(du -sb --apparent-size "$data" | cut -f 1)
if [ "$bytes" -le 60000000 ]; then good; else complain "data/ takes $bytes bytes, 60000000 are allowed"; fi

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 40 ]
