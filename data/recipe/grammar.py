"""A grammar in plain sentences: what the made-up registers are written with.

A text holds choices and names:

    "[One|Each] {weather} morning {he} [walked|ran] to the {place}[| again]."

`[a|b]` takes one of its alternatives (an empty one leaves the part out), `{name}` is looked up: first among the values
bound for this document (so that a hero keeps his name), then among the rules, lists of texts of which one is taken
afresh each time.  What comes out is expanded again.  `{a:word}` puts the article before what `word` gives, `{A:word}`
the same with a capital, `{^word}` begins it with a capital.  Every choice is drawn from the one random.Random given.
"""
import re

CHOICE = re.compile(r"\[([^\[\]]*)\]")
NAME = re.compile(r"\{([aA]:|\^)?(\w+)\}")


class Grammar:
    def __init__(self, rng, rules):
        self.rng = rng
        self.rules = rules

    def say(self, text, bound=None):
        """Expand text until nothing is left to expand."""
        bound = bound or {}

        def choose(match):
            return self.rng.choice(match.group(1).split("|"))

        def name(match):
            how, key = match.groups()
            value = bound[key] if key in bound else self.rng.choice(self.rules[key])
            value = self.say(value, bound)
            if how == "^":
                return value[:1].upper() + value[1:]
            if how:
                article = "an" if value[:1].lower() in "aeiou" and not value.startswith(("one", "uni", "use")) else "a"
                return (article.capitalize() if how == "A:" else article) + " " + value
            return value

        for _ in range(50):
            before = text
            while CHOICE.search(text):
                text = CHOICE.sub(choose, text)
            text = NAME.sub(name, text)
            if text == before:
                return text
        raise ValueError(f"a rule that never ends: {text[:80]}")

    def some(self, texts, low, high):
        """Between low and high different ones of texts, in their order there."""
        n = min(len(texts), self.rng.randint(low, high))
        return [texts[i] for i in sorted(self.rng.sample(range(len(texts)), n))]
