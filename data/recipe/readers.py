"""Readers: the natural registers of the corpus, each out of the package that carries it.

One function per package.  It is given the folder the package was unpacked into and yields documents: plain text in
ASCII punctuation, hard-wrapped lines joined, paragraphs separated by a blank line.  What a document is matters, since
the split into training and held-out text is made by document: a speech, a chapter of a novel or of scripture, a page
of the manual, a country, a page of the dictionary, a run of entries of a lexicon.

Formats met on the way, none of which is worth a dependency:
  R data        an .rdb file is a row of blocks, each a 4-byte big-endian length and a zlib stream of XDR; a string in
                XDR is a CHARSXP: flags (type 9 in the low byte), a length, the bytes.
  SWORD zText   the .bzs file indexes zlib blocks of the .bzz file (offset, size, size unpacked: little-endian 32 bits);
                inside is OSIS, with a title element at the head of each chapter.
  WordNet       data.noun etc.: one sense a line, columns by spaces, the gloss after " | ".  The lines are kept in
                file order, where neighbours are related, so that a page of twelve senses has one topic.
  dictd         gzip with an index inside; gzip reads it.  Entries begin in column 1.

Sources and licences of all of them: SOURCES.md.
"""
import gzip
import html
import json
import pathlib
import re
import struct
import zlib

PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2014": "--", "\u2013": "-",
                       "\u2026": "...", "\u00a0": " ", "\ufeff": None, "\r": None, "\u00b4": "'", "\u00b6": None})
ENTRIES_A_PAGE = 12


def plain(text):
    return text.translate(PLAIN)


def unwrap(text):
    """Paragraphs, each on one line, a blank line between."""
    paragraphs = re.split(r"\n\s*\n", plain(text))
    return "\n\n".join(re.sub(r"\s+", " ", p).strip() for p in paragraphs if p.strip())


def one_file(folder, pattern):
    found = sorted(pathlib.Path(folder).rglob(pattern))
    if not found:
        raise SystemExit(f"{folder}: no {pattern} inside; is it another version of the package?")
    return found[0]


def text_files(folder, pattern):
    one_file(folder, pattern)
    return [p for p in sorted(pathlib.Path(folder).rglob(pattern))]


def pages(entries, size=ENTRIES_A_PAGE, between="\n"):
    for i in range(0, len(entries), size):
        yield between.join(entries[i:i + size])


def speeches(folder):
    """The state of the union, one speech a file, 1790 to 2020."""
    for path in text_files(folder, "data/*.txt"):
        yield unwrap(path.read_text(errors="replace"))


def sea(folder):
    """Moby-Dick by chapter.  data.txt, which repeats them all, is left out."""
    for path in text_files(folder, "data/*.txt"):
        if path.name != "data.txt":
            yield unwrap(path.read_text(errors="replace"))


def rdb_strings(raw):
    """The strings of every block of an .rdb file, block by block."""
    at = 0
    while at + 8 < len(raw):
        size = struct.unpack_from(">I", raw, at)[0]
        stream = zlib.decompressobj()
        block = stream.decompress(raw[at + 4:])
        if len(block) != size:
            raise SystemExit(f"rdb block at {at}: {len(block)} bytes, its header says {size}")
        at = len(raw) - len(stream.unused_data)
        strings, i = [], 0
        while i + 8 <= len(block):
            flags, length = struct.unpack_from(">Ii", block, i)
            if flags & 0xff == 9 and flags >> 20 == 0 and 0 <= length <= len(block) - i - 8:
                strings.append(block[i + 8:i + 8 + length].decode("utf-8", "replace"))
                i += 8 + length
            else:
                i += 1
        yield strings


def novels(folder):
    """Jane Austen's six novels by chapter."""
    raw = one_file(folder, "Rdata.rdb").read_bytes()
    for strings in rdb_strings(raw):
        if len(strings) < 1000:         # the package's help pages and indexes
            continue
        yield from re.split(r"\n\n(?=(?:CHAPTER|Chapter|VOLUME) )", unwrap("\n".join(strings)))


def scripture(folder):
    """The King James Bible by chapter; Strong's numbers, notes and headings left out."""
    for testament in ("ot", "nt"):
        index = one_file(folder, testament + ".bzs").read_bytes()
        blocks = one_file(folder, testament + ".bzz").read_bytes()
        for at in range(0, len(index) - 11, 12):
            start, size, _ = struct.unpack_from("<III", index, at)
            if not size:
                continue
            text = zlib.decompress(blocks[start:start + size]).decode("utf-8", "replace")
            text = re.sub(r"<note.*?</note>", "", text, flags=re.S)
            text = re.sub(r"<chapter [^>]*sID=[^>]*>", "\f", text)
            text = re.sub(r"<title.*?</title>", "\n", text, flags=re.S)
            text = re.sub(r"</?(lb|p|l|lg|div|milestone)\b[^>]*>", " ", text)
            text = plain(html.unescape(re.sub(r"<[^>]+>", "", text)))
            for chapter in text.split("\f"):
                chapter = re.sub(r"[ \t]+", " ", re.sub(r"[ \t]*\n\s*", "\n", chapter)).strip()
                if chapter:
                    yield chapter


def senses(folder):
    """Every WordNet sense: (words, part of speech, gloss), in file order."""
    for part, name in (("noun", "noun"), ("verb", "verb"), ("adj", "adjective"), ("adv", "adverb")):
        for line in one_file(folder, f"wordnet/data.{part}").read_text(errors="replace").splitlines():
            if line.startswith("  "):
                continue                # the licence at the head
            columns, gloss = line.split(" | ", 1)
            columns = columns.split(" ")
            words = [re.sub(r"\(.*\)", "", columns[4 + 2 * i]).replace("_", " ") for i in range(int(columns[3], 16))]
            yield words, name, re.sub(r"\s+", " ", gloss).strip()


def dictionary(folder):
    entries = [f"{', '.join(words[:3])} ({part}): {gloss}" for words, part, gloss in senses(folder)]
    yield from pages(entries)


def country_files(folder):
    for path in text_files(folder, "*/*.json"):
        if path.parent.name != "meta":
            yield json.loads(path.read_text())


def country_name(country):
    try:
        name = country["Government"]["Country name"]["conventional short form"]["text"]
    except (KeyError, TypeError):
        return ""
    return "" if name.startswith("none") else plain(name)


def countries(folder):
    """The World Factbook, one country a document: headings in capitals, then `Name: text` lines."""
    def lines(node, depth):
        for key, value in node.items():
            if not isinstance(value, dict):
                continue
            if depth == 0:
                yield "\n" + key.upper()
            if value.get("text"):
                yield f"{key}: {value['text']}"
            yield from lines({k: v for k, v in value.items() if k != "text"}, depth + 1)

    for country in country_files(folder):
        yield plain(country_name(country) + "\n" + "\n".join(lines(country, 0)))


# Indexes, cross-references and machine-made lists: no prose in them.
NOT_PROSE = re.compile(r"crossref|keyword_index|requirements|sitemap|syntaxdiagrams|/syntax/|/releaselog/|/toc|oldnews")


def manual(folder):
    """SQLite's manual, one page a document.  Drawings, tables of contents and scripts are left out."""
    for path in text_files(folder, "*.html"):
        if NOT_PROSE.search(str(path)):
            continue
        page = path.read_text(errors="replace")
        page = re.sub(r"(?s)<(script|style|svg|head)\b.*?</\1>|<!--.*?-->", " ", page)
        page = re.sub(r"(?s)^.*?(?=<h1|<div class=.?fancy_title)", "", page, count=1)
        page = re.sub(r'(?s)<div class="fancy_toc">.*?<div class="startsearch"></div>|<div id="toc_sub">.*?(?=<h1)', "",
                      page)
        code = []

        def keep(match):
            code.append(re.sub(r"<[^>]+>", "", match.group(2)).strip("\n"))
            return f"\n\n\0{len(code) - 1}\0\n\n"

        page = re.sub(r"(?s)<(pre|blockquote)\b[^>]*>(.*?)</\1>", keep, page)
        page = re.sub(r"(?i)</?(p|h\d|li|ul|ol|div|tr|table|dl|dt|dd|center)\b[^>]*>|<br>", "\n\n", page)
        text = unwrap(html.unescape(re.sub(r"<[^>]+>", "", page)))
        text = re.sub(r"\0(\d+)\0", lambda m: plain(html.unescape(code[int(m.group(1))])), text)
        text = re.sub(r"(?s)^.*?(Search Changelog|Table Of Contents)\s*", "", text, count=1)
        if len(text) > 800:
            yield text


def dictd(folder, name):
    with gzip.open(one_file(folder, name), "rt", encoding="utf-8", errors="replace") as f:
        return plain(f.read())


def hackers(folder):
    """The Jargon File, eight entries a document."""
    text = dictd(folder, "jargon.dict.dz")
    text = re.sub(r"\{\s*", "", text).replace("}", "")
    entries = re.split(r"\n(?=\S[^\n]{0,60}\n \S)", text)[1:]
    entries = ["\n".join(unwrap(e).split("\n\n")) for e in entries]
    yield from pages([e for e in entries if len(e) > 60], 8, "\n\n")


def wit(folder):
    """The Devil's Dictionary, eight entries a document; verse keeps its lines."""
    text = dictd(folder, "devil.dict.dz")
    text = text[text.index("ABASEMENT,"):]
    entries = []
    for entry in re.split(r"\n(?=[A-Z][A-Z' -]+[,.])", text):
        blocks = re.split(r"\n\s*\n", entry.strip("\n"))
        blocks = [re.sub(r"(?m)^    ", "", b) if b.startswith("    ") else re.sub(r"\s+", " ",
                                                                                  b).strip() for b in blocks]
        entries.append("\n\n".join(blocks).strip())
    yield from pages(entries, 8, "\n\n")
