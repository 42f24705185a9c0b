#!/usr/bin/env python3
"""Write the text that `lapidary sae check` runs when it is given none: a little of every register's held-out text.

    samples.py --work WORK --out data/check.txt [--characters 1000]

From every register but policies (a template, always the same) one stretch of so many characters out of the longest
held-out document, cut at line ends; registers in the order of the mix, a blank line between.
"""
import argparse
import pathlib

import corpus


def stretch(document, characters):
    """Whole lines from a third of the way in; where lines are long, from a sentence's end to another's."""
    at = len(document) // 3 if len(document) > 3 * characters else 0
    at = document.find("\n", at) + 1 if at and "\n" in document[at:at + characters] else at
    end = document.rfind("\n", at, at + characters)
    return document[at:end if end > at + characters // 2 else at + characters].strip()


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--out", required=True, type=pathlib.Path)
    args.add_argument("--characters", type=int, default=1000)
    a = args.parse_args()
    parts = [stretch(max(corpus.load(a.work, "held", r), key=len), a.characters)
             for r in corpus.REGISTERS if r not in ("policies", "dialogues")]
    a.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"{a.out}: {len(parts)} registers, {a.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
