#!/usr/bin/env python3
"""The tables of data/README.md, out of what the other scripts measured.

    figures.py --work WORK [--saes FOLDER] [--labels FOLDER] [--steering FOLDER] [--readme data/README.md]

Reads held.json of the runs, ngram.json, metrics.json, scores.json and effects.json, and prints Markdown.  With --readme, each table
replaces what stands between its two marks there,

    <!-- losses: python data/recipe/figures.py -->  ...  <!-- /losses -->

so the figures in the text are always those of the files.  A table whose files are not there yet is left out.
"""
import argparse
import json
import pathlib
import re

import data


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" for _ in head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows])


def losses(a):
    ngram = json.loads((a.work / "ngram.json").read_text())
    model = json.loads((a.work / "base" / "held.json").read_text())["registers"]
    return table(["register", "", "held-out tokens", "unigram", "trigram", "base model"],
                 [[r, "natural" if r in data.NATURAL else "made up", row["tokens"], f"{row['unigram']:.2f}",
                   f"{row['trigram']:.2f}", f"**{model[r]['nats']:.2f}**"]
                  for r, row in ngram.items()])


def chat(a):
    held = json.loads((a.work / "chat" / "held.json").read_text())
    return table(["asked for", "right", "turn ended"],
                 [[name, f"{row['right']:.2f}", f"{row['ended']:.2f}"] for name, row in held.items()])


def shield(a):
    held = json.loads((a.work / "shield" / "held.json").read_text())
    return table(["model", "scenes", "policy", "n", "AUC", "accuracy", "precision", "recall"],
                 [[model, part, policy, m["n"], *(f"{m[k]:.2f}" for k in ("auc", "accuracy", "precision", "recall"))]
                  for model, parts in held.items() for part, policies in parts.items() for policy, m in policies.items()
                  if model == "shield" or policy == "all"])


def draft(a):
    held = json.loads((a.work / "draft" / "held.json").read_text())
    return table(["register", "accepted", "greedy agreement"],
                 [[r, f"{m['accepted']:.2f}", f"{m['agreed']:.2f}"] for r, m in held.items()])


def saes(a):
    metrics = json.loads((a.saes / "metrics.json").read_text())
    return table(["SAE", "L0", "FVU", "loss", "delta loss", "recovered", "dead", "dense"],
                 [[name, f"{m['l0']:.1f}", f"{m['fvu']:.3f}", f"{m['loss']:.3f}", f"{m['delta_loss']:.3f}",
                   f"{m['recovered']:.1%}", f"{m['dead']:.1%}", f"{m['dense']:.1%}"]
                  for name, m in metrics.items()])


def legibility(a):
    s = json.loads((a.labels / "scores.json").read_text())["summary"]
    rows = [[f"{i} to {i + 1}", n] for i, n in enumerate(s["distribution"])]
    below = f"{s['features']} random live features: median {s['median']:.1f}, {s['share_at_8']:.0%} at 8 or better."
    return table(["score of 10", "features"], rows) + "\n\n" + below


def steering(a):
    effects = json.loads((a.steering / "effects.json").read_text())
    return table(["recipe", "register", "feature", "clamped to", "baseline", "steered", "difference, 95 % interval",
                  "likeliest register: before, after"],
                 [[name, e["register"], e["feature"], f"{e['strength']} x {e['max_act']:.1f}", f"{e['baseline']:.2f}",
                   f"{e['steered']:.2f}", f"+{e['difference']:.2f} ({e['interval'][0]:.2f} to {e['interval'][1]:.2f})",
                   f"{e['baseline_first']:.0%}, {e['steered_first']:.0%}"] for name, e in effects.items()])


TABLES = {"losses": losses, "chat": chat, "shield": shield, "draft": draft, "saes": saes, "legibility": legibility,
          "steering": steering}


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--saes", type=pathlib.Path, default=pathlib.Path("saes"))
    args.add_argument("--labels", type=pathlib.Path, default=pathlib.Path("labels"))
    args.add_argument("--steering", type=pathlib.Path, default=pathlib.Path("steering"))
    args.add_argument("--readme", type=pathlib.Path)
    a = args.parse_args()
    text = a.readme.read_text() if a.readme else None
    for name, make in TABLES.items():
        try:
            made = make(a)
        except FileNotFoundError as e:
            print(f"{name}: left out, {e.filename} is missing")
            continue
        print(f"\n{name}\n\n{made}")
        if text is not None:
            marks = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)", re.S)
            if not marks.search(text):
                raise SystemExit(f"{a.readme}: no marks for {name}")
            text = marks.sub(lambda m: m.group(1) + "\n" + made + "\n\n" + m.group(2), text)
    if text is not None:
        a.readme.write_text(text)


if __name__ == "__main__":
    main()
