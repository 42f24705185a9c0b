#!/usr/bin/env python3
"""Write what Hugging Face makes of conversations with Gemma 2's own chat template, for tests/test_chat.c.

    make_chat_goldens.py --template chat_template.jinja --dir tokenizer

The template is the `chat_template` of google/gemma-2-2b-it (tokenizer_config.json), which is not ours to ship: give it as
a file, its SHA-256 is checked.  `transformers` renders it and, as GemmaTokenizer over DIR/tokenizer.model, tokenizes the
result.  A line of DIR/chat.tsv is

    options   "g": generation prompt, "c": continue the last turn, "-": neither
    text      rendered; or, after "!", the template's complaint
    ids       of the whole text with its control tokens parsed
    role, content, role, content, ...

with bytes that are not plain ASCII, '%', and spaces at the ends as %XX, and a lone '%' for nothing at all.  The ids are transformers'.  Where it takes a run
of spaces or tabs apart that libsentencepiece keeps whole (it never finds such added tokens in raw text), they are
libsentencepiece's, which is Google's own; the two may differ for no other reason.
"""
import argparse
import hashlib
import os
import random
import re

import jinja2
import sentencepiece as spm
from transformers import GemmaTokenizer

from make_tokenizer_goldens import escape
from random_strings import EMOJI, SPECIALS, WORDS

SHA256 = "1e51d5c0fec2f83da1953fb850b7b532b7da02d0dc35f9201e671e0b9a35a123"
BLANKS = ["", " ", "\n", "\n\n\n", "\t", "\r\n", "\v\f", "\x1c\x1d\x1e\x1f", "\x85", "\u00a0", "\u1680", "\u2000\u2003\u200a", "\u2028", "\u2029",
          "\u202f", "\u205f", "\u3000", "  \n \t\u3000\n"]
NEARLY = ["\u200b", "\u180e", "\u2060", "\ufeff", "\u2581", "\0", "\x1b", "\x08"]


def conversations():
    def turns(*contents):
        return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]

    yield turns("Hi")
    yield turns("Hello, how are you?", "Hi there", "Who are you")
    yield turns("")
    yield turns("", "", "")
    yield [{"role": "user", "content": "a"}, {"role": "model", "content": "b"}]
    yield [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    yield [{"role": "assistant", "content": "Hi"}]
    yield [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    yield turns("a", "b") + [{"role": "assistant", "content": "c"}]
    for b in BLANKS + NEARLY:
        yield turns(b + "x" + b)
        yield turns("x" + b + "y", b)
    for s in SPECIALS:
        yield turns(s, "a" + s + "b")
    r = random.Random(3)
    for _ in range(60):
        contents = []
        for _ in range(r.randint(1, 4)):
            words = [r.choice(WORDS + EMOJI + (SPECIALS if r.random() < 0.2 else WORDS)) for _ in range(r.randint(0, 8))]
            joint = r.choice([" ", " ", " ", "\n", "\n\n", "  "])
            contents.append(r.choice(BLANKS) + joint.join(words) + r.choice(BLANKS))
        yield turns(*contents)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--template", required=True)
    args.add_argument("--dir", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer"))
    a = args.parse_args()
    model = os.path.join(a.dir, "tokenizer.model")
    with open(a.template, encoding="utf-8") as f:
        template = f.read().rstrip("\n")
    if hashlib.sha256(template.encode()).hexdigest() != SHA256:
        raise SystemExit(f"{a.template}: not the chat_template of google/gemma-2-2b-it")
    hf, sp = GemmaTokenizer.from_pretrained(a.dir), spm.SentencePieceProcessor(model_file=model)
    hf.chat_template = template
    lines = []
    for turns in conversations():
        for option in "-gc":
            if option == "c" and not turns[-1]["content"].strip():
                continue  # transformers, looking for nothing at the end, cuts the template's newline off too
            said = [x for t in turns for x in (t["role"], escape(t["content"].encode()))]
            try:
                text = hf.apply_chat_template(turns, tokenize=False, add_generation_prompt=option == "g",
                                              continue_final_message=option == "c")
            except jinja2.TemplateError as e:
                lines.append([option, "!" + str(e), "", *said])
                continue
            ids = hf(text, add_special_tokens=False).input_ids
            whole = [2] + sp.encode(text[len("<bos>"):])
            if ids != whole and not any(s in text[5:] for s in ("<bos>", "<eos>", "<pad>", "<unk>")):
                assert re.search("[ \u2581\t]{2}", text), (text, ids, whole)
                ids = whole
            lines.append([option, escape(text.encode()), " ".join(map(str, ids)), *said])
    with open(os.path.join(a.dir, "chat.tsv"), "w", encoding="ascii") as f:
        f.writelines("\t".join(x or "%" for x in line) + "\n" for line in lines)


if __name__ == "__main__":
    main()
