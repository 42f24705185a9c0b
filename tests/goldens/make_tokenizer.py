#!/usr/bin/env python3
"""Train the small Gemma-like tokenizer that tests and the synthetic model use.

    make_tokenizer.py --text devil.dict.dz --out tokenizer/tokenizer.model

The trainer is the `sentencepiece` package with the settings of Gemma's own model file: BPE, byte fallback, identity
normalizer, no dummy prefix, all whitespace kept, digits split.  The low ids are Gemma's own (0 <pad> .. 107
<end_of_turn>, newline runs, space runs, HTML tags, bytes); [toxicity=0], the tab runs and <unused99> come last, as there.

The text: Ambrose Bierce, The Devil's Dictionary (1911), in the public domain (Debian package dict-devil, file
/usr/share/dictd/devil.dict.dz), and what the grammar below makes up (ours, the licence of this repository).  Both are
fixed, so is the seed: the same version of the trainer gives the same bytes.
"""
import argparse
import gzip
import io
import random
import re

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb

VOCAB = 4096
SPACE = "\u2581"
TAGS = """<table> <caption> <thead> <tbody> <tfoot> <tr> <th> <td>
</table> </caption> </thead> </tbody> </tfoot> </tr> </th> </td>
<h1> <h2> <h3> <h4> <h5> <h6> <blockquote> </h1> </h2> </h3> </h4> </h5> </h6> </blockquote>
<strong> <em> <b> <i> <u> <s> <sub> <sup> <code>
</strong> </em> </b> </i> </u> </s> </sub> </sup> </code>""".split()
FIRST = (["<mask>", "<2mass>", "[@BOS@]"] + [f"<unused{i}>" for i in range(99)] + ["<start_of_turn>", "<end_of_turn>"]
         + ["\n" * n for n in range(1, 32)] + [SPACE * n for n in range(2, 32)] + TAGS)
LAST = ["[toxicity=0]"] + ["\t" * n for n in range(2, 32)] + ["<unused99>"]

NAMES = "Ada Ben Clara David Ellen Frank Grace Henry Iris James Kate Lucas Mary Nora Oscar Paula Robert Sarah Tom Vera".split()
PLACES = """Paris London Rome Berlin Madrid Vienna Cairo Tokyo Lima Oslo France Germany Italy Spain Egypt Japan Peru
Norway India China Canada Brazil Kenya Greece Texas Boston Chicago""".split()
ANIMALS = "cat dog horse whale bird fox rabbit bear wolf sheep goat mouse lion tiger owl duck frog snake spider bee".split()
THINGS = """ball book lamp table chair window door garden house bridge river mountain forest boat train car letter map
clock key coat hat box basket bottle mirror piano computer engine machine camera telescope stone tree flower""".split()
FOODS = """bread butter cheese milk flour sugar salt pepper onion garlic potato carrot tomato rice chicken fish beef egg
lemon apple orange honey oil vinegar cream chocolate vanilla cinnamon""".split()
ADJECTIVES = """small large old young red green blue white black bright dark warm cold quiet loud happy sad angry kind clever
strange beautiful heavy light slow quick soft hard deep narrow wide empty full ancient modern simple difficult""".split()
VERBS = """walked ran looked talked listened waited worked played climbed opened closed carried followed found lost took
gave made saw heard remembered forgot understood explained answered asked wanted needed tried helped learned wrote""".split()
ADVERBS = "slowly quickly quietly suddenly often never always sometimes carefully together again".split()
TOPICS = """language mathematics history music physics chemistry biology medicine law economics politics religion art
science engineering weather energy water light gravity evolution memory attention neurons features activations vectors
matrices probability information temperature pressure electricity""".split()
NOUNS = "value index count result name path file line token layer model weight score buffer size state error list".split()
WORLD = """Le chat est sur la table et le chien dort dans le jardin.|Où est la bibliothèque? Elle est à côté de l'école.
Der Hund läuft über die Straße, und die Kinder spielen im Garten.|Können Sie mir bitte helfen? Ich möchte nach München fahren.
El niño come una manzana en la cocina mañana por la mañana.|¿Dónde está la estación? ¡Qué día tan bonito!
Il gatto dorme sul divano perché è stanco.|O coração não é só um músculo; é também uma canção.
Кошка сидит на столе, а собака спит в саду.|Где находится вокзал? Сегодня хорошая погода.
Η γάτα κάθεται στο τραπέζι και ο σκύλος κοιμάται.|Kot siedzi na stole, a pies śpi w ogrodzie; żółty liść.
猫坐在桌子上,狗在花园里睡觉。今天天气很好。|你好,世界!我们学习数学和历史。
猫がテーブルの上に座っています。今日は天気がいいですね。|東京は日本の首都です。ありがとうございます。
고양이가 탁자 위에 앉아 있습니다. 안녕하세요.|القطة تجلس على الطاولة والكلب ينام في الحديقة.
החתול יושב על השולחן. שלום עולם.|बिल्ली मेज पर बैठी है। नमस्ते दुनिया।
แมวนั่งอยู่บนโต๊ะ สวัสดี|Mèo ngồi trên bàn và chó ngủ trong vườn.|Kedi masanın üstünde oturuyor, köpek bahçede uyuyor."""


class Writer:
    """A grammar of many registers.  Every choice comes from one seeded generator."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, words):
        return self.r.choice(words)

    def story(self):
        p, a = self.pick, self.pick(ADJECTIVES)
        n, m = p(NAMES), p(NAMES)
        return (f"Once upon a time there was {'an' if a[0] in 'aeiou' else 'a'} {a} {p(ANIMALS)} called {n}. One day {n} "
                f"{p(VERBS)} {p(ADVERBS)} to the {p(THINGS)} near {p(PLACES)}. \"{p(['Hello', 'Please', 'Wait', 'Yes', 'No'])},"
                f" {m},\" said {n}, \"I have {p(VERBS)} the {p(ADJECTIVES)} {p(THINGS)}.\" They {p(VERBS)} {p(ADVERBS)}, and "
                f"the {p(ANIMALS)} didn't {p(['mind', 'care', 'know', 'come back', 'understand'])}.")

    def recipe(self):
        f = self.r.sample(FOODS, 4)
        lines = [f"# {f[0].title()} with {f[1]}", ""]
        lines += [f"- {self.r.randint(1, 900)} {self.pick(['g', 'ml', 'cups', 'tablespoons of', 'pieces of'])} {x}" for x in f]
        lines += ["", f"1. Heat the oven to {self.r.randint(150, 230)} degrees.", f"2. Mix the {f[0]} with the {f[2]}.",
                  f"3. Add the {f[3]}, stir {self.pick(ADVERBS)}, and bake for {self.r.randint(5, 90)} minutes."]
        return "\n".join(lines)

    def weather(self):
        p = self.pick
        return (f"{p(PLACES)}: {p(['sunny', 'cloudy', 'rain', 'snow', 'fog', 'thunderstorms'])} in the "
                f"{p(['morning', 'afternoon', 'evening', 'night'])}, {self.r.randint(-20, 40)}.{self.r.randint(0, 9)} °C, wind from "
                f"the {p(['north', 'south', 'east', 'west'])} at {self.r.randint(2, 90)} km/h.")

    def chat(self):
        p, t = self.pick, self.pick(TOPICS)
        return (f"{p(['What is', 'Can you explain', 'Tell me about', 'Why do we need', 'How does one study'])} {t}?\n"
                f"{t.title()} is the study of {p(TOPICS)} and {p(TOPICS)}. It is {p(ADJECTIVES)}, because every "
                f"{p(THINGS)} in {p(PLACES)} depends on it. For example, **{p(TOPICS)}** helps us to understand {p(TOPICS)}.")

    def code(self):
        p, f, x, y = self.pick, self.pick(NOUNS), self.pick(NOUNS), self.pick(NOUNS)
        return p([
            f"def get_{f}(self, {x}, {y}=None):\n    if {x} is None:\n        raise ValueError(\"no {x}\")\n"
            f"    for i in range(len({x})):\n        self.{y}[i] += {x}[i] * {self.r.randint(0, 99)}\n    return self.{f}\n",
            f"static int {f}_{x}(const char *{y}, size_t n)\n{{\n\tif (!{y})\n\t\treturn -1;\n"
            f"\tfor (size_t i = 0; i < n; i++) {{\n\t\tprintf(\"%d\\n\", {y}[i]);\n\t}}\n\treturn 0;\n}}\n",
            f"import numpy as np\n\nclass {f.title()}:\n    def __init__(self, {x}: int, {y}: str) -> None:\n"
            f"        self.{x} = {x}  # the {y}\n        self.{y} = {y}\n",
            f"{{\"{f}\": {self.r.randint(0, 9999)}, \"{x}\": [true, false, null], \"{y}\": \"{p(THINGS)}\"}}",
            f"SELECT {f}, {x} FROM {y} WHERE {f} > {self.r.randint(0, 999)} ORDER BY {x} DESC;",
            f"<div class=\"{f}\"><a href=\"https://example.org/{x}/{y}.html\">{p(THINGS).title()}</a></div>"])

    def world(self):
        return self.pick(re.split(r"[|\n]", WORLD))

    def documents(self, n):
        kinds = [self.story] * 4 + [self.chat] * 4 + [self.recipe] * 2 + [self.weather] + [self.code] * 5 + [self.world] * 2
        for _ in range(n):
            yield self.pick(kinds)()


def dictionary(path):
    """The Devil's Dictionary from the dict server's file, its lines joined to paragraphs."""
    with (gzip.open if path.endswith(".dz") else open)(path, "rt", encoding="latin-1") as f:
        text = f.read()
    text = text[text.index("PREFACE"):]
    for paragraph in re.split(r"\n\s*\n|\n(?=\s{4})", text):
        line = re.sub(r"\s+", " ", paragraph).strip()
        if line:
            yield line


def train(sentences, pieces=VOCAB, coverage=1.0):
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, model_type="bpe", vocab_size=pieces,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False, byte_fallback=True,
        split_digits=True, split_by_unicode_script=True, split_by_number=True, split_by_whitespace=True,
        allow_whitespace_only_pieces=True, character_coverage=coverage, max_sentence_length=16384, num_threads=1,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
        user_defined_symbols=FIRST + LAST, minloglevel=2)
    return pb.ModelProto.FromString(model.getvalue())


def like_gemma(model):
    """Move the pieces of LAST to the end, and keep nothing of this machine."""
    last = set(LAST)
    pieces = [p for p in model.pieces if p.piece not in last] + [p for p in model.pieces if p.piece in last]
    copies = [pb.ModelProto.SentencePiece.FromString(p.SerializeToString()) for p in pieces]
    del model.pieces[:]
    model.pieces.extend(copies)
    for field in ("input", "model_prefix", "user_defined_symbols", "minloglevel", "num_threads"):
        if field in model.trainer_spec.DESCRIPTOR.fields_by_name:
            model.trainer_spec.ClearField(field)
    return model


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--text", required=True, help="devil.dict.dz of the Debian package dict-devil")
    args.add_argument("--out", required=True)
    a = args.parse_args()
    sentences = list(dictionary(a.text))
    for document in Writer(20240627).documents(6000):
        sentences += [line for line in document.split("\n") if line]
    model = like_gemma(train(sentences))
    names = [p.piece for p in model.pieces]
    assert len(names) == VOCAB and names[4:4 + len(FIRST)] == FIRST and names[-len(LAST):] == LAST
    assert names.index("<start_of_turn>") == 106 and names.index("\n") == 108 and names.index("<0x00>") == 217
    with open(a.out, "wb") as f:
        f.write(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
