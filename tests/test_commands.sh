#!/usr/bin/env bash
# The commands that read a model, from outside, on a small synthetic one: what they print, that they agree with one another,
# and how they fail.  The numbers themselves are held to transformers' by the golden tests (goldens/check_trace.py).
# Usage: test_commands.sh path/to/lapidary
set -uo pipefail
lapidary=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export LC_ALL=C.UTF-8
m=$scratch/m
passed=0 failed=0

# is WHAT GOT WANT
is() {
    if [ "$2" == "$3" ]; then
        passed=$((passed + 1))
    else
        printf '%s\n    got  %s\n    want %s\n' "$1" "${2:0:300}" "${3:0:300}" >&2
        failed=$((failed + 1))
    fi
}
# has WHAT TEXT PATTERN (an extended regular expression)
has() {
    if grep -qE -- "$3" <<<"$2"; then
        passed=$((passed + 1))
    else
        printf '%s: no "%s" in\n    %s\n' "$1" "$3" "${2:0:300}" >&2
        failed=$((failed + 1))
    fi
}
# lap COMMAND WORD...: quietly, with nobody at stdin, on one thread unless WORD says otherwise.
lap() { "$lapidary" "$1" -q --threads 1 "${@:2}" 2>"$scratch/err" </dev/null; }
# fails STATUS PATTERN WORD...
fails() {
    local want=$1 pattern=$2 got
    shift 2
    lap "$@" >"$scratch/out"
    got=$?
    is "status of $*" "$got" "$want"
    has "stderr of $*" "$(cat "$scratch/err")" "$pattern"
    is "stdout of $*" "$(cat "$scratch/out")" ""
}

small="n_layers=3,d_model=64,n_heads=4,n_kv_heads=2,head_dim=16,d_ff=128,vocab=1500,max_positions=64,window=8"
lap synth --shape nano --set "$small" --type f32 -o "$m" >"$scratch/out" || { cat "$scratch/err" >&2; exit 1; }

# ---- info
info=$(lap info -m "$m")
for line in $'layers\t3' $'d_model\t64' $'kv_heads\t2' $'vocab\t1500' $'window\t8' $'sliding\teven layers' $'format\tsafetensors' \
    $'fits\tyes' $'tokenizer_pieces\t1500' $'end_of_turn\t107' $'kv_bytes_per_token\t[0-9]+' $'stored_elements F32\t[0-9]+'; do
    has info "$info" "^$line\$"
done
json=$(lap info -m "$m" --json --check)
has "info --json" "$json" '"layers": 3,'
has "info --json" "$json" '"warnings": \[\]'
has "info --check" "$json" '"nonfinite_weights": 0,?'
cp -r "$m" "$scratch/nan"
size=$(stat -c %s "$scratch/nan/model.safetensors")
printf '\xff\xff\xff\xff' | dd of="$scratch/nan/model.safetensors" bs=1 seek=$((size - 4)) conv=notrunc status=none
has "a NaN weight is counted" "$(lap info -m "$scratch/nan" --check)" $'^nonfinite_weights\t1$'
has "a NaN weight is reported" "$(cat "$scratch/err")" 'NaN'
lap synth --shape nano --set "n_layers=42,d_model=3584,n_heads=1,n_kv_heads=1,head_dim=2,d_ff=2,vocab=1024,query_pre_attn_scalar=224" \
    -o "$scratch/old9b" >"$scratch/out"
has "an old 9B's scale" "$(lap info -m "$scratch/old9b")" $'^warning\t.*224'
has "bf16 embed scale" "$(lap info -m "$scratch/old9b")" $'^embed_scale_bf16\t59.75$'
fails 1 "nowhere" info -m "$scratch/nowhere"

# ---- hooks
hooks=$(lap hooks)
is "sites" "$(tail -n +2 <<<"$hooks" | wc -l)" 31
is "columns of every site" "$(awk -F'\t' '{ print NF }' <<<"$hooks" | sort -u)" 5
has hooks "$hooks" $'^resid_post\tblocks.\{l\}.hook_resid_post\tmodel.layers.\{l\}.output\t\[n, D\]\t'
has hooks "$hooks" $'^z\tblocks.\{l\}.attn.hook_z\tmodel.layers.\{l\}.self_attn.o_proj.input\t\[n, H, E\]\t'
has hooks "$hooks" $'^scores\t.*\t\[n, H, K\]\t'
is "hooks --json" "$(lap hooks --json | grep -c '"site"')" 31

# ---- tokenize
text=$'Hello  wörld\t<table>\n\n日本 <start_of_turn>\xe2\x82'
ids=$(lap tokenize -m "$m" --only-ids "${text%??}")
is "there and back" "$(lap tokenize -m "$m" --ids "$ids" --show-specials)" "${text%??}"
spans=$(lap tokenize -m "$m" "$text" | tail -n +2 | awk -F'\t' '$5 != at { print "gap at " $5 } { at = $6 } END { print at }')
is "spans tile the text" "$spans" "$(printf %s "$text" | wc -c)"
is "from stdin" "$(printf %s "abc" | "$lapidary" tokenize -m "$m" --only-ids)" "$(lap tokenize -m "$m" --only-ids abc)"
is "--bos" "$(lap tokenize -m "$m" --only-ids --bos abc)" "2,$(lap tokenize -m "$m" --only-ids abc)"
is "sentencepiece finds turn markers" "$(lap tokenize -m "$m" --only-ids '<start_of_turn>')" 106
is "but not control tokens" "$(lap tokenize -m "$m" --only-ids '<bos>' | tr , '\n' | grep -cx 2)" 0
is "parsed: both" "$(lap tokenize -m "$m" --only-ids --specials parsed '<bos><start_of_turn>')" 2,106
is "literal: neither" "$(lap tokenize -m "$m" --only-ids --specials literal '<start_of_turn>' | tr , '\n' | grep -cx 106)" 0
is "a .model file" "$(lap tokenize -m "$m/tokenizer.model" --only-ids abc)" "$(lap tokenize -m "$m" --only-ids abc)"
fails 1 "token 1500" tokenize -m "$m" --ids 1,1500
fails 2 "whole numbers" tokenize -m "$m" --ids 1,x
fails 2 "exclude" tokenize -m "$m" --ids 1 abc

# ---- generate
run=(generate -m "$m" "Hello world" -n 24 --ignore-eos -T 1.2 --seed 7)
said=$(lap "${run[@]}")
is "the same again" "$(lap "${run[@]}")" "$said"
is "three threads, waves of one" "$(lap "${run[@]}" --threads 3 --wave 1)" "$said"
is "plain C kernels" "$(lap "${run[@]}" --kernels c)" "$said"
is "another seed" "$([ "$(lap "${run[@]}" --seed 8)" != "$said" ] && echo differs)" differs
prompt=2,$(lap tokenize -m "$m" --only-ids "Hello world")
is "the prompt as ids" "$(lap generate -m "$m" --tokens "$prompt" -n 24 --ignore-eos -T 1.2 --seed 7)" "$said"
is "the prompt from a pipe" "$(printf 'Hello world' | "$lapidary" generate -q --threads 1 -m "$m" -n 24 --ignore-eos -T 1.2 --seed 7)" "$said"
printf 'Hello world' >"$scratch/prompt"
is "the prompt from a file" "$(lap generate -m "$m" -f "$scratch/prompt" -n 24 --ignore-eos -T 1.2 --seed 7)" "$said"
is "no second <bos>" "$(lap generate -m "$m" "<bos>Hello world" --specials parsed -n 24 --ignore-eos -T 1.2 --seed 7)" "$said"
table=$(lap "${run[@]}" --logprobs 2)
is "a line per token" "$(tail -n +2 <<<"$table" | wc -l)" 24
is "columns" "$(awk -F'\t' '{ print NF }' <<<"$table" | sort -u)" 8
drawn=$(tail -n +2 <<<"$table" | cut -f2 | paste -sd,)
is "the tokens say the text" "$(lap tokenize -m "$m" --ids "$drawn")" "$said"
json=$(lap "${run[@]}" --json)
has "--json" "$json" '"finish": "length"'
has "--json" "$json" '"seed": "7"'
has "--json" "$json" '"arithmetic": "exact"'
is "--json has every token" "$(grep -c '"pos"' <<<"$json")" 24
stop=${said:9:4}
is "a stop string" "$(lap "${run[@]}" --stop "$stop")" "${said%%"$stop"*}"
has "its name" "$(lap "${run[@]}" --stop "$stop" --json)" '"finish": "stop_string"'
has "a stop token" "$(lap "${run[@]}" --stop-id "${drawn%%,*}" --json)" '"finish": "stop_token"'
has "<end_of_turn> ends it" "$(lap generate -m "$m" a --bias 107=1000 --json)" '"finish": "stop_token"'
has "the context is full" "$(lap generate -m "$m" --tokens "$prompt" -n 0 --ignore-eos --json)" '"finish": "context"'
is "--chat is the template" "$(lap generate -m "$m" --chat hi -n 5 -T 1)" "$(lap generate -m "$m" -n 5 -T 1 --specials parsed \
    $'<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n')"
banned=${drawn%%,*}
is "a banned token never comes" "$(lap "${run[@]}" --bias "$banned=-inf" --logprobs 0 | cut -f2 | grep -cx "$banned")" 0
long=$(seq -s, 3 70)
fails 1 "68 tokens, the context holds 64" generate -m "$m" --tokens "$long"
fails 1 "token 1500" generate -m "$m" --tokens 1500
fails 2 "more than one prompt" generate -m "$m" --tokens 1 abc
fails 2 "do nothing in greedy" generate -m "$m" a --top-k 5
fails 2 "ID=NUMBER" generate -m "$m" a --bias 5
fails 2 "empty" generate -m "$m" a --stop ""
fails 2 "must be from 0 to 1" generate -m "$m" a --top-p 2
fails 2 "repetition" generate -m "$m" a --repetition -1
rm "$scratch/nan/tokenizer.model"
fails 1 "has no tokenizer" generate -m "$scratch/nan" a

# ---- lens
lens=$(lap lens -m "$m" --tokens "$prompt" -k 3 --target "${drawn%%,*}")
is "a line per layer" "$(tail -n +2 <<<"$lens" | wc -l)" 3
greedy=$(lap generate -m "$m" --tokens "$prompt" -n 1 --ignore-eos --logprobs 0 | tail -n 1 | cut -f2)
is "the last layer is the model" "$(tail -n 1 <<<"$lens" | cut -f6)" "$greedy"
is "an earlier position" "$(lap lens -m "$m" --tokens "$prompt,5,6" --pos -3 -k 3 --target "${drawn%%,*}")" "$lens"
has "text as a target" "$(lap lens -m "$m" --tokens "$prompt" --target '<table>')" $'^layer\tentropy\trank\tp\t'
fails 1 "positions 0 to" lens -m "$m" --tokens 2,3 --pos 2
fails 2 "is [0-9]+ tokens" lens -m "$m" --tokens 2,3 --target "two words"

# ---- trace
t=(trace -m "$m" --tokens "$prompt")
table=$(lap "${t[@]}" --sites resid_post,blocks.1.attn.hook_q,model.layers.2.mlp,pattern,logits --layers 0,last -o "$scratch/t.safetensors")
n=$(tr , '\n' <<<"$prompt" | wc -l)
is "what was written" "$(tail -n +2 <<<"$table" | cut -f1,4)" "$(printf '%s\n' "blocks.0.hook_resid_post	[$n, 64]" \
    "blocks.2.hook_resid_post	[$n, 64]" "blocks.1.attn.hook_q	[$n, 4, 16]" "blocks.2.mlp_raw	[$n, 64]" \
    "blocks.0.attn.hook_pattern	[$n, 4, $n]" "blocks.2.attn.hook_pattern	[$n, 4, $n]" "logits	[$n, 1500]")"
header=$(head -c 2000 "$scratch/t.safetensors" | tr -d '\0')
has "the file says the same" "$header" '"blocks.2.hook_resid_post":'
has "and what it is" "$header" "\"ids\": ?\"$prompt\""
lap "${t[@]}" --sites resid_post.1 -o "$scratch/a.npy" >"$scratch/out"
lap "${t[@]}" --sites resid_post.1 -o "$scratch/b.npy" --wave 1 --threads 3 --kernels c >"$scratch/out"
is "the same bits however it is cut" "$(cmp "$scratch/a.npy" "$scratch/b.npy" && echo same)" same
lap "${t[@]}" --sites resid_post.1 -o "$scratch/a.npy" --generate 4 >"$scratch/out"
follow=$(lap generate -m "$m" --tokens "$prompt" -n 4 --ignore-eos --logprobs 0 | tail -n +2 | cut -f2 | paste -sd,)
lap trace -m "$m" --tokens "$prompt,$follow" --sites resid_post.1 -o "$scratch/b.npy" >"$scratch/out"
is "generated tokens as prompt tokens" "$(cmp "$scratch/a.npy" "$scratch/b.npy" && echo same)" same
fails 2 "-o FILE" "${t[@]}"
fails 1 "did you mean" "${t[@]}" --sites resid_pots -o "$scratch/x.npy"
fails 1 "layers 0 to 2" "${t[@]}" --layers 3 -o "$scratch/x.npy"
fails 1 "numbers and ranges" "${t[@]}" --layers 0, -o "$scratch/x.npy"
fails 1 "holds one tensor" "${t[@]}" -o "$scratch/x.npy"
fails 1 "$scratch/no/x" "${t[@]}" -o "$scratch/no/x.safetensors"
fails 1 "the context holds 64" "${t[@]}" --generate 62 -o "$scratch/x.safetensors"
is "a failure leaves no file" "$(find "$scratch" -maxdepth 1 -name 'x.*')" ""

# ---- chat through a pipe
talk() { printf %b "$1" | "$lapidary" chat -q --threads 1 -m "$m" -n 6 "${@:2}" 2>"$scratch/err"; }
is "one turn" "$(talk 'hi\n')" "$(lap generate -m "$m" --chat hi -n 6)"
two=$(talk 'hi\nyou\n' --json)
is "two turns" "$(wc -l <<<"$two")" 2
is "the first is as before" "$(head -n 1 <<<"$two")" "$(talk 'hi\n' --json)"
is "/reset forgets" "$(talk 'hi\n/reset\nhi\n' --json | sort -u | wc -l)" 1
is "/undo takes back" "$(talk 'hi\nyou\n/undo\nyou\n' --json | tail -n 2 | sort -u | wc -l)" 1
is "a slash that is none" "$(talk '//hi\n')" "$(lap generate -m "$m" --chat /hi -n 6)"
is "a turn of two lines" "$(talk 'a\\\nb\n')" "$(lap generate -m "$m" --chat $'a\nb' -n 6)"
is "/system folds" "$(talk '/system be\nhi\n')" "$(lap generate -m "$m" --chat $'be\n\nhi' -n 6)"
is "/exit leaves" "$(talk '/exit\nhi\n')" ""
talk '/bogus\n' >"$scratch/out"
has "an unknown command" "$(cat "$scratch/err")" '/help'

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 100 ]
