#!/usr/bin/env python3
"""The recipe of the embedded models (data/recipe) on a corpus of a few pages, without network or compiler.

What is checked is what a training run relies on and would not show by its losses: the readers of the odd formats on
files made here, that the split keeps training and held-out text apart, Gemma's ids in the tokenizer, the chunked loss
against autograd of the plain one, that a run stopped and gone on with equals one that was not, that the model is
transformers' model beyond its sliding window, and that the n-gram baseline is a distribution.
"""
import gzip
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import zlib

import gguf
import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECIPE = ROOT / "data" / "recipe"
sys.path.insert(0, str(RECIPE))

import chat  # noqa: E402
import corpus  # noqa: E402
import data  # noqa: E402
import dialogue  # noqa: E402
import export  # noqa: E402
import labels  # noqa: E402
import model as gemma  # noqa: E402
import ngram  # noqa: E402
import policies  # noqa: E402
import readers  # noqa: E402
import make_gguf  # noqa: E402
import sae  # noqa: E402
import steering  # noqa: E402
import synth  # noqa: E402
import train  # noqa: E402

PIECES = 1700
FACTS = {"glosses": [("lamp", "noun", "a thing that gives light")],
         "countries": [("Norway", "Oslo", "northern Europe", "Norwegian")], "verses": ["And there was light."]}


def check(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what}")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_readers(folder):
    def charsxp(text):
        return struct.pack(">Ii", 0x00040009, len(text.encode())) + text.encode()

    lines = ["CHAPTER I", ""] + [f"Line {i} of it \u2014 \u201cyes\u201d." for i in range(1200)] + ["", "CHAPTER II",
                                                                                                    "", "Short."]
    block = b"X\n\0\0" + b"".join(charsxp(x) for x in lines)
    packed = zlib.compress(block)
    write(folder / "r" / "Rdata.rdb", struct.pack(">I", len(block)) + packed)
    chapters = list(readers.novels(folder / "r"))
    check(len(chapters) == 2 and chapters[0].startswith('CHAPTER I\n\nLine 0 of it -- "yes". Line 1') and chapters[1] == "CHAPTER II\n\nShort.", "R data")

    text = ('<chapter osisID="Gen.1" sID="g1"/><title type="chapter">Genesis 1</title><verse><w lemma="strong:H1">In the beginning</w><note>gloss</note> God.</verse>'
            '<chapter osisID="Gen.2" sID="g2"/><title>2</title><verse>Thus \u201cit\u201d was &amp; is.</verse>')
    for testament in ("ot", "nt"):
        z = zlib.compress(text.encode())
        write(folder / "s" / (testament + ".bzs"),
              struct.pack("<III", 0, 0, 0) + struct.pack("<III", 0, len(z), len(text.encode())))
        write(folder / "s" / (testament + ".bzz"), z)
    check(list(readers.scripture(folder / "s")) == ["In the beginning God.", 'Thus "it" was & is.'] * 2, "SWORD zText")

    sense = '00001740 03 n 02 wild_ox 0 aurochs(a) 0 001 @ 00001930 n 0000 | a big animal; "it ran"  \n'
    for part in ("noun", "verb", "adj", "adv"):
        write(folder / "w" / "wordnet" / ("data." + part), "  1 the licence\n" + sense)
    check(next(readers.senses(folder / "w")) == (["wild ox", "aurochs"], "noun", 'a big animal; "it ran"'), "WordNet")

    write(folder / "c" / "europe" / "no.json",
          json.dumps({"Geography": {"Location": {"text": "north"}},
                                                           "Government": {"Country name": {"conventional short form": {"text": "Norway"}}}}))
    check(list(readers.countries(folder / "c")) == ["Norway\n\nGEOGRAPHY\nLocation: north\n\nGOVERNMENT\nconventional short form: Norway"], "the Factbook")
    jargon = "head\n\nfoo\n /foo/\n\n    A word,\n    {bar} like.\n\nbaz\n n.\n\n    Another word, which is here to be long enough for a page of it.\n"
    write(folder / "j" / "jargon.dict.dz", gzip.compress((jargon + "x").encode()))
    check(list(readers.hackers(folder / "j"))[0].startswith("baz n.\nAnother word"), "the Jargon File")


def documents():
    """A corpus of a few pages for every register."""
    rng = random.Random(1)
    words = "the of and a ship whale lamp king said unto sea house they went over hill light gentle lady".split()
    def sentence():
        return " ".join(rng.choice(words) for _ in range(rng.randint(12, 25))).capitalize() + "."

    natural = [" ".join(sentence() for _ in range(8)) for _ in range(60)]
    speaker = dialogue.Dialogues(rng, FACTS)
    made = {"recipes": lambda: synth.recipe(rng), "weather": lambda: synth.bulletin(rng),
            "stories": lambda: synth.story(rng),
            "dialogues": lambda: dialogue.turns(speaker.dialogue()),
            "policies": lambda: (lambda x: x[0] + ("Yes" if x[1] else "No"))(policies.Examples(rng, False).draw())}
    made["dictionary"] = lambda: "\n".join(f"{rng.choice(words)} (noun): a thing that one may find {rng.choice(words)}" for _ in range(8))
    made["countries"] = lambda: rng.choice(["Norway", "Peru"]) + "\n" + rng.choice(natural)
    return {r: [made[r]() for _ in range(60)] if r in made else natural for r in corpus.REGISTERS}


def country(name, capital):
    return {"Geography": {"Location": {"text": "somewhere"}},
            "People and Society": {"Languages": {"text": "Its own (official)"}},
            "Government": {"Country name": {"conventional short form": {"text": name}},
                           "Capital": {"name": {"text": capital}}}}


def test_corpus(work):
    counts = {}
    for register, texts in documents().items():
        kept, held = corpus.split(texts)
        check(held and not set(kept) & set(held) and len(kept) + len(held) == len(texts), f"split of {register}")
        corpus.save(work, register, {"train": kept, "held": held}, counts)
    a, b = (synth.story(random.Random(7)) for _ in range(2))
    check(a == b and "{" not in a and "[" not in a, "a seeded story")
    scenes = policies.scenes()
    check(len(scenes) == len({s[0] for s in scenes}), "no scene twice")
    trained, held = (policies.Examples(random.Random(2), h) for h in (False, True))
    check(not {s[0] for p in policies.POLICIES for s in trained.bad[p]} & {s[0] for p in policies.POLICIES for s in held.bad[p]}, "held-out scenes are not trained on")


def test_tokenizer(work):
    subprocess.run([sys.executable, RECIPE / "tokenizer.py", "--work", work, "--pieces", str(PIECES), "--characters",
                    "200000"], check=True, stdout=subprocess.DEVNULL)
    import sentencepiece as spm
    sp = spm.SentencePieceProcessor(model_file=str(work / "tokenizer" / "tokenizer.model"))
    check(sp.vocab_size() == PIECES and sp.piece_to_id("<start_of_turn>") == 106 and sp.piece_to_id("\n") == 108 and sp.piece_to_id("<0x00>") == 217, "Gemma's ids")
    check(sp.piece_to_id("<unused99>") == PIECES - 1, "the last piece")
    text = corpus.load(work, "held", "dialogues")[0]
    tokens = data.read(work, "held", "dialogues")
    check(tokens[0] == 2 and tokens[1] == 106 and sp.decode(tokens[1:list(tokens).index(1)].tolist()) == text,
          "held-out tokens")


def small(dtype=torch.float32):
    shape = train.SHAPES["tiny"]
    torch.manual_seed(3)
    net = gemma.Gemma2(gemma.Shape(**{**vars(shape), "vocab_size": PIECES}), dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.05)      # norms at 0 would hide a missing 1 + w
    return net


def test_model():
    net = small()
    ids = torch.randint(3, PIECES, (3, 65))
    weights = torch.rand(3, 64)
    plain = torch.nn.functional.cross_entropy(net(ids[:, :-1]).reshape(-1, PIECES), ids[:, 1:].reshape(-1),
                                              reduction="none")
    plain = (plain * (weights / weights.sum()).reshape(-1)).sum()
    plain.backward()
    wanted = {n: p.grad.clone() for n, p in net.named_parameters()}
    net.zero_grad()
    gemma.CappedLoss.CHUNK = 50                     # several chunks, the last one short
    loss = gemma.capped_loss(net, ids, weights)
    loss.backward()
    check(abs(float((loss - plain).detach())) < 1e-5, "the chunked loss")
    for n, p in net.named_parameters():
        check((p.grad - wanted[n]).norm() < 1e-4 * wanted[n].norm() + 1e-9, f"gradient of {n}")
    far = export.difference(net, export.hugging_face(net), ids[:, :-1])
    check(far < export.AGREE, f"transformers' logits differ by {far:.1e}")
    with torch.no_grad():
        net.model.layers[0].post_attention_layernorm.weight += 0.5
    check(export.difference(net, export.hugging_face(small()), ids[:, :-1]) > export.AGREE, "the comparison can fail")
    seen = {}
    net(ids, watch=lambda site, i,
        t: seen.__setitem__((site, i), t.shape[-1]) if site != "res" else torch.zeros_like(t))
    check(set(seen) == {(s, i) for s in ("att", "mlp", "transcoder_in") for i in range(2)}, "the sites")


def sitting(work, name, steps, *more):
    subprocess.run([sys.executable, RECIPE / "train.py", "--work", work, "--name", name, "--shape", "tiny", "--steps",
                    str(steps), "--no-compile", "--threads", "1", *more],
                   check=True, stdout=subprocess.DEVNULL)
    return torch.load(work / name / "checkpoint.pt", weights_only=False)


def test_train(work):
    whole = sitting(work, "whole", 16)
    part = sitting(work, "parts", 16, "--stop-at", "5")
    check(part["step"] == 5 and whole["step"] == 16, "steps")
    rest = sitting(work, "parts", 16)
    check(all(torch.equal(whole["model"][n], rest["model"][n]) for n in whole["model"]),
          "a run in two sittings equals one in one")
    losses = [json.loads(line)["loss"] for line in open(work / "whole" / "log.jsonl") if '"loss"' in line]
    check(losses and losses[-1] < losses[0] - 0.05, f"the loss falls: {losses}")
    sitting(work, "whole", 16, "--evaluate")
    held = json.loads((work / "whole" / "held.json").read_text())["registers"]
    check(set(held) == set(corpus.REGISTERS) and all(0 < h["nats"] < np.log(PIECES) + 1 for h in held.values()),
          "held-out losses")
    run_export(work, "whole", work / "hf")
    config = json.loads((work / "hf" / "config.json").read_text())
    check(config["architectures"] == ["Gemma2ForCausalLM"] and (work / "hf" / "tokenizer.model").exists() and (work / "hf" / "model.safetensors").exists(), "the exported folder")


def test_teacher():
    """A teacher's distribution as the target: against autograd of the plain cross-entropy of two distributions."""
    net, teacher = small(), small()
    with torch.no_grad():
        teacher.model.embed_tokens.weight.mul_(1.3)
    ids = torch.randint(3, PIECES, (2, 33))
    p = torch.softmax(teacher(ids[:, :-1]), -1).detach()
    plain = -(p * torch.log_softmax(net(ids[:, :-1]), -1)).sum(-1).mean()
    plain.backward()
    wanted = {n: q.grad.clone() for n, q in net.named_parameters()}
    net.zero_grad()
    loss = gemma.capped_loss(net, ids, None, teacher)
    loss.backward()
    check(abs(float((loss - plain).detach())) < 1e-5, "the loss towards a teacher")
    for n, q in net.named_parameters():
        check((q.grad - wanted[n]).norm() < 1e-4 * wanted[n].norm() + 1e-9, f"gradient of {n} towards a teacher")


def run(script, work, *more):
    done = subprocess.run([sys.executable, RECIPE / (script + ".py"), "--work", work, "--threads", "1", *more],
                          stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def test_tuned(work):
    """The tuned models learn something, and their measurements run."""
    for name, capital in (("Norway", "Oslo"), ("Peru", "Lima")):
        write(work / "unpacked" / "countries" / "europe" / (name + ".json"), json.dumps(country(name, capital)))
    ids = np.array([2, 106, 9, 108, 50, 107, 108, 106, 7, 108, 60, 61, 107, 108, 106, 9, 108, 70])     # 7 says "model"
    check(chat.spoken(ids, 7).nonzero()[0].tolist() == [9, 10, 11],
          "what the model says counts, its end of turn included")
    for script, steps in (("chat", 3), ("draft", 3), ("shield", 40)):
        run(script, work, "--base", "whole", "--steps", str(steps), "--no-compile")
        run(script, work, "--base", "whole", "--evaluate",
            *(["--each", "4"] if script == "chat" else ["--each", "60"] if script == "shield" else []))
        check((work / script / "held.json").exists(), f"{script} is measured")
    shield = json.loads((work / "shield" / "held.json").read_text())
    check(shield["shield"]["trained"]["all"]["n"] == 60, "the shield's table")
    run_export(work, "chat", work / "chat.gguf", "--stop", "1", "107")
    stored = {t.name: t for t in gguf.GGUFReader(work / "chat.gguf").tensors}
    for name, p in export.load(work, "chat").state_dict().items():
        t = stored[make_gguf.gguf_name(name)]
        held = torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy()).reshape(p.shape)
        check(torch.equal(held, p if p.ndim == 2 else 1 + p), f"{name} is measured as it is shipped")
    draft = json.loads((work / "draft" / "held.json").read_text())
    check(all(0 < d["accepted"] <= 1 for d in draft.values()), "acceptance is a probability")


def run_export(work, name, out, *more):
    subprocess.run([sys.executable, RECIPE / "export.py", "--work", work, "--name", name, "--out", out, *more], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_sae(work):
    """Training makes fewer errors than the mean, and the file says in float32 what training computed."""
    torch.manual_seed(0)
    parts = torch.nn.functional.normalize(torch.randn(40, 24), dim=1)
    x = ((torch.rand(40000, 40) < 0.05) * torch.rand(40000, 40) * 8) @ parts + 3
    arrays = sae.train(x.numpy(), x.numpy(), 3, 64, 300, 1, lambda: True, lambda **_: None)
    sae.write(work / "scope", "res", 0, arrays, 3.2)
    path = sae.find(work / "scope")["res", 0]
    check(path.parent.name == "average_l0_3" and path.parts[-4] == "layer_0", "Gemma Scope's folders")
    scope = sae.Scope(path)
    f = scope.encode(x)
    fvu = float((x - scope.decode(f)).pow(2).sum() / (x - x.mean(0)).pow(2).sum())
    check(fvu < 0.4 and 2 < float((f > 0).sum(1).float().mean()) < 4.5,
          f"FVU {fvu:.3f}, L0 {float((f > 0).sum(1).float().mean()):.2f}")
    check(torch.allclose(scope.W_dec.norm(dim=1), torch.ones(64), atol=1e-5), "unit rows")
    run("sae", work, "--name", "whole", "--out", work / "saes", "--tokens", "9000", "--features", "64", "--steps", "4",
        "--sites", "res", "transcoder")
    run("sae", work, "--name", "whole", "--out", work / "saes", "--evaluate")
    metrics = json.loads((work / "saes" / "metrics.json").read_text())
    check(set(metrics) == {"res.0", "res.1", "transcoder.1"} and all(m["l0"] > 0 and m["fvu"] > 0 for m in metrics.values()),
          "metrics of each SAE")


def test_labels(work):
    """A name is all the reader knows; a feature with an obvious name scores high, one whose name says nothing does not."""
    pieces = [f"\u2581w{chr(97 + i // 26 % 26)}{chr(97 + i % 26)}{i // 676}" for i in range(PIECES)]
    for i, p in enumerate("\u2581of \u2581ship \u2581said \u2581wilderness \u25811 , \u2581Rome ess".split()):
        pieces[10 + i] = p
    language = labels.Language(work, pieces)
    of, ship, said, wild, one, comma, rome, ess, other = 10, 11, 12, 13, 14, 15, 16, 17, 40

    def fits(name, yes, no):
        reader = labels.Reader(name, language)
        return reader.fit(np.array(yes)) > reader.fit(np.array(no))

    check(fits('the word "ship", "x"', [ship, other], [of, other]), "a word")
    check(fits('after "of"', [of, other], [other, of]) and fits('before "said"', [other, said], [said, other]), "a neighbour")
    check(fits('ending in "ess"', [wild], [ess]), "an ending, of a whole word")
    check(fits('of the kind "number"', [one], [comma]) and fits('of the kind "capitalised"', [rome], [ship]), "a kind")
    check(fits('near "of", "said"', [other, of, said], [other, of, of]), "words nearby")
    weather, recipe = (data.read(work, "held", r)[1:33].astype(int) for r in ("weather", "recipes"))
    check(fits("in weather", weather, recipe) and fits("in recipes, stories", recipe, weather), "a register")
    check(not fits('the word "ship" in weather', weather, recipe), "both or nothing")
    rng = np.random.default_rng(0)
    rows = np.concatenate((np.full((500, 1), 2), rng.integers(10, 400, (500, labels.act.T - 1))), 1)
    masks = rows > 2
    here, anywhere = np.nonzero((rows == 20) & masks), (np.sort(rng.integers(0, 500, 300)),
                                                        rng.integers(1, labels.act.T, 300))
    triples = [np.concatenate(c) for c in zip((*here, np.zeros(len(here[0]), int), 1 + rng.random(len(here[0]))),
                                              (*anywhere, np.ones(300, int), rng.random(300) + 1))]
    a = labels.act.Activity(rows, masks, np.array(["sea"] * 500), triples)
    check(fits('after "of" or else the word "said"', [said, other], [ship, other]) and labels.Reader('near "of" or else after "of"', language).fit(
        np.array([of, other])) > labels.Reader('near "of"', language).fit(np.array([of, other])), "either part will do, both are better")
    name, share = labels.Namer(a, language).name(0)[0]
    check(name.startswith(f'the word "{labels.word(pieces[20])}"') and share > 0.95, f"the obvious name, got {name}")
    check(labels.score(name, a, language, 0) > 9.5, "an obvious name tells all snippets apart")
    check(3 < labels.score('the word "nothing"', a, language, 1) < 7, "a name that says nothing is worth a guess")
    check(labels.label_of([("a", 0.7), ("a or else b", 0.8)])[0] == "a or else b" and not labels.label_of([("a", 0.7)]), "labels")
    check(len(a.of(2)[2]) == 0 and len(a.of(1)[2]) == 300, "the places of a feature")
    run("labels", work, "--name", "whole", "--saes", work / "saes", "--out", work / "labels", "--layer", "1", "--score",
        "5", "--windows", "20")
    check((work / "labels" / "examples.md").exists() and json.loads((work / "labels" / "scores.json").read_text())["summary"]["features"] <= 5, "the page of examples")
    sources = sorted(p.name for p in (work / "labels" / "lapidary-base").iterdir())
    check(sources == ["0-lapidary-res-64", "1-lapidary-res-64", "1-lapidary-transcoder-64"], f"every SAE is named: {sources}")
    for source in sources:
        path = work / "labels" / "lapidary-base" / source / "features" / "batch-0.jsonl.gz"
        features = gzip.open(path, "rt").read().splitlines()
        check(features and {"index", "maxActApprox", "frac_nonzero", "pos_str", "neg_str"} <= set(json.loads(features[0])),
              "Neuronpedia's layout")


def test_steering(work):
    """The edit is the formula, the classifier tells registers apart, and recipes are written with their effects."""
    net, scope = export.load(work, "whole"), sae.Scope(sae.find(work / "saes")["res", 1])
    ids, seen = torch.randint(3, PIECES, (2, 9)), {}
    net(ids, watch=lambda s, i, t: seen.__setitem__("x", t) if (s, i) == ("res", 1) else None)
    with torch.no_grad():
        x, f = seen["x"].detach(), scope.encode(seen["x"].detach())
        feature = int((f[:, 1:] > 0).sum((0, 1)).argmax())
        y = steering.clamp(scope, feature, 7.0, 1)("res", 1, x)
        want = x + (7.0 - f[..., feature])[..., None] * scope.W_dec[feature]
    check(torch.equal(y[:, 0], x[:, 0]) and torch.allclose(y[:, 1:], want[:, 1:], atol=1e-5), "clamp")
    check(steering.clamp(scope, feature, 7.0, 1)("res", 0, x) is None, "the other layers are left alone")
    texts = [steering.generate(net, [[2, 9, 10], [2, 9]], [1, 2]) for _ in range(2)]
    check(texts[0] == texts[1] and all(len(t) == steering.TOKENS for t in texts[0]), "the same seed, the same text")
    classifier = steering.Classifier(work, PIECES)
    for register in ("weather", "recipes"):
        p = classifier.probabilities([data.read(work, "held", register)[1:60].tolist()])[0]
        check(classifier.names[int(p.argmax())] == register, f"{register} is told by its tokens")
    run("steering", work, "--name", "whole", "--saes", work / "saes", "--labels", work / "labels", "--out",
        work / "steering", "--layer", "1", "--seeds", "6", "--windows", "30", "--only", "weather")
    recipe = json.loads((work / "steering" / "weather.json").read_text())
    effect = json.loads((work / "steering" / "effects.json").read_text())["weather"]
    check(recipe["features"][0]["index"] == effect["feature"] and recipe["features"][0]["layer"].startswith("1-lapidary-res-"),
          "the recipe names what was measured")
    check(effect["interval"][0] <= effect["difference"] <= effect["interval"][1], "an interval around the effect")


def test_ngram(work):
    tokens = data.read(work, "train", "stories")
    trigram = ngram.Trigram(tokens, PIECES)
    every = np.arange(PIECES)
    rows, masks = data.held_windows(work, "stories", 64)
    for a, b, _ in list(zip(*ngram.targets(rows, masks)))[:40]:
        p = trigram.probability(np.full(PIECES, a), np.full(PIECES, b), every)
        check((p > 0).all() and abs(p.sum() - 1) < 1e-9, "a distribution")
    own, other = (ngram.nats(trigram.probability(*ngram.targets(*data.held_windows(work, r, 64)))) for r in ("stories",
                                                                                                             "weather"))
    check(own < other, "a register's trigram knows its register")


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        test_readers(folder)
        test_model()
        test_teacher()
        test_corpus(folder / "work")
        test_tokenizer(folder / "work")
        test_ngram(folder / "work")
        test_train(folder / "work")
        test_tuned(folder / "work")
        test_sae(folder / "work")
        test_labels(folder / "work")
        test_steering(folder / "work")
    print("recipe: ok")


if __name__ == "__main__":
    main()
