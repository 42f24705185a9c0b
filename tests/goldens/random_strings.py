"""Seeded strings that are hard on a tokenizer: bytes objects, many of them not valid UTF-8."""
import random

SPACE = "\u2581"
SPECIALS = """<pad> <eos> <bos> <unk> <mask> <2mass> [@BOS@] <unused0> <unused7> <unused42> <unused98> <unused99> <unused100>
<start_of_turn> <end_of_turn> [toxicity=0] <0x41> <0x0A> <s> </s> <table> </table> <h1> </code> <start_of_turn <end_of_turn
<unused start_of_turn> <<bos>> <Mask> < bos> <table><tr><td> <|im_end|> [INST]""".split()
WORDS = """the The of and to in a is that it for was on with as at by not this but from or have an they which one you were all
her she there would their we him been has when who will no more if out so up said what its about than into them can only
Elephant interpretability residual stream neuron feature don't it's I'll naïve café Zürich São größer straße être año
мир книга Привет αβγ λόγος 世界 你好 東京 ありがとう カタカナ 한국어 שלום مرحبا नमस्ते สวัสดี Việt İstanbul ﬁ ﬀ Ａｂｃ １２３ ① ² ½
return def self.x int main() {} ==> != :: -> // /* */ #include <stdio.h> https://example.org/a?b=c&d=%20 a@b.org""".split()
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1eb\U0001f1f7", "\u2764\ufe0f", "\U0001f44d\U0001f3fd",
         "\u200d", "\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e007f"]
ODD = ["\0", "\x01", "\x07", "\x1b[31m", "\x7f", "\x85", "\u00a0", "\u00ad", "\u200b", "\u200e", "\u2028", "\u2029", "\u3000", "\ufeff",
       "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\r", "\r\n", "\v", "\f", "e\u0301", "\u0301", SPACE, SPACE * 2, SPACE * 31, SPACE + " "]
BROKEN = [b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe2\x96", b"\xe2\x96\x20", b"\xed\xa0\x80",
          b"\xed\xbf\xbf", b"\xef\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80",
          b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff", b"\xff\xff\xff", b"\xe2\x96\x81\x81", b"\xc3\x28", b"\xe2\x28\xa1"]


class Strings:
    def __init__(self, seed, pieces):
        self.r = random.Random(seed)
        self.pieces = [p.replace(SPACE, " ") for p in pieces]

    def run(self):
        """One unit many times: the agenda's ties, and the runs that are pieces."""
        unit = self.r.choice([" ", "\n", "\t", SPACE, "a", "e", "1", "ab", "!", "-", "=", "é", "世", "\U0001f600", "\r\n", " \n", "the "])
        return (unit * self.r.randint(1, 70)).encode()

    def rune(self):
        r = self.r
        c = r.choice([r.randint(0, 0x7f), r.randint(0x80, 0x7ff), r.randint(0x800, 0xffff), r.randint(0x10000, 0x10ffff)])
        return chr(c).encode("utf-8", "surrogatepass")  # surrogates too, which are not valid

    def part(self):
        r = self.r
        k = r.randint(0, 13)
        if k <= 3:
            return r.choice(["", " ", " ", " "]).encode() + r.choice(WORDS).encode()
        if k == 4:
            return b"".join(r.choice(self.pieces).encode() for _ in range(r.randint(1, 4)))
        if k == 5:
            s = r.choice(self.pieces).encode()
            i = r.randint(0, len(s))
            return s[:i] if r.random() < 0.5 else s[i:]
        if k == 6:
            return self.run()
        if k == 7:
            return r.choice(SPECIALS).encode()
        if k == 8:
            return r.choice(EMOJI + ODD).encode()
        if k == 9:
            return r.choice(BROKEN)
        if k == 10:
            return self.rune()
        if k == 11:
            return r.choice([str(r.randint(0, 10 ** r.randint(1, 12))), f"{r.random() * 100:.3f}", hex(r.randint(0, 1 << 32))]).encode()
        if k == 12:
            return bytes(r.randint(0, 255) for _ in range(r.randint(1, 6)))
        return "".join(r.choice("abcdefghijklmnopqrstuvwxyzABCDEF .,;:'\"()[]{}<>/\\|_-+=*&^%$#@!?~`") for _ in range(r.randint(1, 12))).encode()

    def next(self):
        return b"".join(self.part() for _ in range(self.r.choice([1, 1, 2, 3, 4, 6, 10])))
