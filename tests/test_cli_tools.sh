#!/usr/bin/env bash
# synth, bench, verify and recipe from outside, on tiny models: what they print, refuse and leave behind.
# Usage: test_cli_tools.sh path/to/lapidary
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"

# expect STATUS WORD...: run lapidary WORD... and compare the exit status.
expect() {
    local want=$1 got
    shift
    TMPDIR=$scratch/tmp "$lapidary" "$@" >"$out" 2>"$err" </dev/null
    got=$?
    if [ $got = "$want" ]; then good; else complain "lapidary $*: status $got, $want expected"; fi
}

says() { if grep -qF -- "$1" "$err"; then good; else complain "\"$1\" was expected on stderr"; fi; }
prints() { if grep -qE -- "$1" "$out"; then good; else complain "\"$1\" was expected on stdout"; fi; }
same() { if cmp -s "$1" "$2"; then good; else complain "$1 and $2 differ"; fi; }
# is_json: one well-formed document, if there is a Python to say so.
is_json() {
    command -v python3 >/dev/null || return
    if python3 -m json.tool <"$out" >/dev/null 2>&1; then good; else complain "not JSON: $(head -c 200 "$out")"; fi
}
mkdir "$scratch/tmp"

# ---- synth
tiny=(synth --shape nano --set "n_layers=2,vocab=1024" --quiet)
expect 2 synth
says "--shape is missing"
expect 2 synth --shape 3b -o "$scratch/x"
says "2b, 9b, 27b or nano"
expect 2 synth --shape nano
says "--output is missing"
expect 2 synth --shape nano --type q9_0 -o "$scratch/x"
says "Q8_0"
expect 2 synth --shape nano -m "$scratch" -o "$scratch/x"
expect 1 synth --shape nano --set layers=2 -o "$scratch/x"
says "n_layers"
expect 1 synth --shape nano --type q8_0 -o "$scratch/x"
says "--format gguf"
expect 0 "${tiny[@]}" -o "$scratch/a" --threads 1
prints $'safetensors\tBF16\t0\t2\t64\t1024'
expect 0 "${tiny[@]}" -o "$scratch/b" --threads 2 --json
prints '"format": *"safetensors"'
is_json
for file in config.json generation_config.json tokenizer.model model.safetensors; do same "$scratch/a/$file" "$scratch/b/$file"; done
expect 1 "${tiny[@]}" -o "$scratch/a"
says "--force"
expect 0 "${tiny[@]}" -o "$scratch/a" --force --seed 0x10
if cmp -s "$scratch/a/model.safetensors" "$scratch/b/model.safetensors"; then complain "the seed changes nothing"; else good; fi
expect 0 "${tiny[@]}" -o "$scratch/c.gguf" --type q8_0
prints $'gguf\tQ8_0'
expect 0 "${tiny[@]}" -o "$scratch/d" --format gguf # no suffix: the format was asked for
if [ "$(head -c 4 "$scratch/d")" = GGUF ]; then good; else complain "--format gguf wrote something else"; fi
rm "$scratch/d"

# Ctrl-C leaves nothing behind: 27 GB are not written in a second.
if [ "$(df -Pk "$scratch" | awk 'NR == 2 { print $4 }')" -gt 30000000 ]; then
    mkdir "$scratch/stop"
    "$lapidary" synth --shape 27b --type q8_0 -o "$scratch/stop/x.gguf" --quiet >"$out" 2>"$err" &
    pid=$!
    sleep 1
    kill -INT $pid
    wait $pid
    if [ $? = 130 ] && [ -z "$(ls -A "$scratch/stop")" ]; then good; else complain "Ctrl-C left $(ls -A "$scratch/stop")"; fi
fi

# ---- bench
expect 0 bench --shape nano --type q8_0 --rounds 2 --prompt 20 --tokens 3 --quiet
prints $'^cpu\tthreads\tkernels\tversion'
prints $'^matmul up, 512 rows\texact\tGFLOP/s\t[0-9.e+]+\t[0-9.e+]+\t[0-9.e+]+\tpeak\t[0-9.]+'
prints $'^decode, bytes moved\texact\tGB/s\t.*\traw read\t[0-9.]+'
prints $'^prompt of 20\tfast\ttoken/s'
prints $'^load\t\ts\t'
if [ -z "$(ls -A "$scratch/tmp")" ]; then good; else complain "bench left $(ls -A "$scratch/tmp") in TMPDIR"; fi
expect 0 bench -m "$scratch/b" --what decode --rounds 1 --tokens 2 --json --quiet --arithmetic fast
is_json
prints '"what": *"decode"'
prints '"beyond_weights_and_cache_mb"'
expect 2 bench --shape nano -m "$scratch/b"
says "not both"
expect 2 bench -m "$scratch/b" --peer python3
says ".gguf"
expect 1 bench -m "$scratch/c.gguf" --peer python3 --peer-script "$scratch/none.py"
says "--peer-script"
if command -v python3 >/dev/null; then
    cat >"$scratch/peer.py" <<'PEER'
for line in ("version", "peer 1"), ("prompt", "10"), ("decode", "20"):
    print(*line, sep=chr(9))
PEER
    expect 0 bench -m "$scratch/c.gguf" --rounds 1 --prompt 8 --tokens 2 --peer python3 --peer-script "$scratch/peer.py" --quiet
    prints $'^llama.cpp decode\t\ttoken/s\t20\t'
    echo 'import sys; sys.exit("no such package")' >"$scratch/peer.py"
    expect 1 bench -m "$scratch/c.gguf" --rounds 1 --what decode --tokens 2 --peer python3 --peer-script "$scratch/peer.py"
    says "llama_cpp"
fi

# ---- verify
expect 0 verify --quiet
prints $'^reference\tarithmetic\tsite\trows\tmedian\tworst\tbound'
prints $'^goldens\texact\tresid_post\t[0-9]+\t[0-9.e-]+\t[0-9.e-]+\t2e-05\t'
prints $'^goldens\tfast\tlogits'
prints $'^one token at a time\texact\t[0-9]+\tsame bits'
expect 0 verify -m "$scratch/c.gguf" --tokens 9 --markdown --quiet
prints '^\| check \| arithmetic \| floats \| result \|'
prints '^\| kernel table c \| exact \|'
expect 0 verify --only itself --json --quiet
is_json
prints '"check": *"forked in the middle"'
expect 1 verify --only reference --quiet --bound 1e-9
says "at most 1.0e-09"
prints $'^goldens\texact'
expect 1 verify --only reference --goldens "$scratch/nowhere"
says "--goldens"
expect 1 verify --only reference --goldens "$scratch/a"
says "expect.safetensors"
expect 2 verify --only reference -m "$scratch/c.gguf"
says "--reference"
expect 1 verify --reference "$scratch/b/model.safetensors" -m "$scratch/b" --only reference
says "make_reference.py"

# ---- recipe
everywhere='"scope": {"bos": true, "template": true}'
adds=$scratch/adds.json request=$scratch/request.json csv=$scratch/steer.csv vector=$scratch/vector.gguf
cat >"$adds" <<END
{"format": "lapidary-recipe", "version": 1, "modelId": "gemma-2-2b", $everywhere,
 "features": [{"layer": "20-gemmascope-res-16k", "index": 12082, "strength": 240, "description": "dogs"}]}
END
expect 0 recipe -q sea
prints $'^edit\tlayer\tindex\tkind\tstrength\tunit\tamount\tscope\tscheduled\tconditional\tdescription$'
prints $'^0\t3-lapidary-res-2k\t[0-9]+\tclamp\t.*\tprompt,generated\t'
expect 0 recipe -q --json sea
is_json
expect 0 recipe -q "$adds" --to lm-eval
prints '^sae_lens,add,gemma-scope-2b-pt-res,layers.20,12082,240,,layer_20/width_16k/average_l0_71,dogs$'
expect 0 recipe "$adds" -o "$csv"
says "python -O -m lm_eval"
prints $'\tlapidary\tlm-eval\t1$'
expect 0 recipe -q "$csv" --to neuronpedia
prints '"index": 12082'
cp "$out" "$request"
expect 0 recipe -q "$request" --json
prints '"kind": "add"'
for file in "$csv" "$request"; do # both are the recipe again, but for the description that a request cannot hold
    expect 0 recipe -q "$file" --to lapidary
    prints '"strength": 240.0'
    prints '"bos": true'
done
expect 1 recipe sea --to lm-eval
says "cannot say scopes (they edit every position, <bos> too); every clamp (they add and project)"
expect 1 recipe sea --to neuronpedia
says "loses every clamp"
if [ -s "$out" ]; then complain "half a request was printed"; else good; fi
expect 1 recipe -q sea -o "$vector"
says "every clamp (it only adds)"
if [ -e "$vector" ]; then complain "a refused vector was written"; else good; fi
expect 1 recipe "$adds" -o "$vector"
says "20-gemmascope-res-16k"
expect 1 recipe "$scratch/nowhere.csv"
says "nowhere.csv"
expect 1 recipe "$adds" --from lm-eval
says "adds.json: line 1"
expect 2 recipe
expect 2 recipe sea --to control-vector
says "--output"
expect 2 recipe sea --to lm-eval --json
expect 2 recipe sea --to yaml
says "lapidary, neuronpedia, lm-eval or control-vector"
expect 2 recipe sea --from lm-evl
says "did you mean lm-eval?"
expect 2 recipe sea -m base
says "runs no model"

# A control vector, made and steered with.
sed -e 's/20-gemmascope-res-16k/3-lapidary-res-2k/; s/gemma-2-2b/lapidary-base/; s/12082/473/; s/240/40/' "$adds" >"$scratch/sea.json"
expect 0 recipe -q "$scratch/sea.json" -o "$vector"
expect 0 recipe -q "$vector"
prints "^0	$vector/direction.3	0	add	1	absolute	1	bos,template,prompt,generated	"
expect 0 recipe -q "$vector" -o "$scratch/imported.json"
for recipe in sea imported; do
    expect 0 steer -q --threads 1 -T 0 -n 8 -r "$scratch/$recipe.json" "Once upon"
    cp "$out" "$scratch/$recipe.txt"
done
same "$scratch/sea.txt" "$scratch/imported.txt"
expect 1 recipe -q "$scratch/sea.json" --to lm-eval
says "SAEs that SAELens has no name for"

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 20 ]
