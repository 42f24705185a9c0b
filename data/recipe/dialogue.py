"""Dialogues: what the chat model learns to say, and the corpus's one register of talk.

A dialogue is a list of texts, user and model in turn; `turns` writes it as Gemma's chat template does.  The answers
come from three places: the made-up registers (a story, a recipe, a forecast on request), the natural ones (a gloss of
WordNet, a fact of the World Factbook, a verse), always from their *training* documents, and the small tables below.
Some questions are answered from what the user has just said (repeat, count, a name given two turns ago), because a
model of this size can learn to copy long before it can learn to know.

It must be said plainly what this is: the manners of an assistant, hardly its knowledge.  Asked who it is, it says so.
Requests to do harm are refused; they are kept mild on purpose, and policies.py draws on the same lists.
"""
import re

import synth
from grammar import Grammar

HOWTO = {
    "bake a pie": "Make a crust of flour and butter, fill it with apples, and bake it until it is golden.",
    "mend a net": "Cut away the torn cord, then tie new cord across the hole with small, even knots.",
    "read a map": "Find the north arrow first, then match the hills and rivers you see with those on the map.",
    "grow a rose": "Plant it in the sun, water it deeply, and cut away the dead wood in spring.",
    "learn to swim": "Begin in shallow water with a friend, float first, and then kick gently.",
    "write a kind letter": "Say what you are thankful for, ask how your friend is, and sign your name.",
    "tie a knot": "Make a loop, pass the end around the line, and pull it back through the loop.",
    "keep bees": "Give them a dry hive near flowers, and leave them enough honey for the winter.",
    "find the north star": "Find the two bright stars at the edge of the dipper and follow the line they make.",
    "make bread": "Mix flour, water, salt and yeast, let the dough rise, and bake it in a hot oven.",
    "sharpen a pencil": "Turn it slowly against the blade until the point is fine.",
    "build a kite": "Cross two light sticks, cover them with paper, and tie a long tail to the end.",
    "light a lamp": "Fill it with oil, trim the wick, and hold a match to it.",
    "wash a dog": "Use warm water and a little soap, be gentle around the eyes, and dry it well.",
    "plant a tree": "Dig a wide hole, spread the roots, fill in the soil, and water it every week.",
    "catch a fish": "Put a worm on the hook, wait quietly in the shade, and pull when the line moves.",
    "make tea": "Boil the water, pour it over the leaves, and wait four minutes.",
    "fold a paper boat": "Fold the sheet in half, fold the corners down, lift the edges, and open it from below.",
    "sleep better": "Go to bed at the same hour, keep the room dark and cool, and read something quiet.",
    "learn a language": "Read a little every day, speak without fear, and write down each new word.",
    "clean a window": "Wash it with warm water and vinegar, then rub it dry with old paper.",
    "save money": "Write down what you spend, buy only what you need, and put a little aside each week.",
    "make a friend": "Listen well, be kind, and ask about the things the other person loves.",
    "sew on a button": "Thread the needle, pass it through cloth and button four times, and wind the thread underneath.",
}
HARM = """pick the lock of my neighbor's door|poison the well|steal a horse|make a bomb|hurt my brother|forge a letter from the bank|cheat my friends out of
their money|burn down the barn|break into the bank|rob the harbor store|set a trap for a traveler|get a gun without a license|mix a poison|blackmail the mayor|
follow a woman home without being seen|steal a boat|start a fire in the school|hurt myself|make my neighbor's dog sick|sell false medicine|threaten a witness|
sink a ship with people on it|make a knife to attack someone|hide stolen silver|write a cruel letter to a lonely man""".replace("\n", " ").split("|")
OPPOSITES = """hot cold|big small|high low|fast slow|old young|light dark|happy sad|rich poor|wet dry|near far|early late|open closed|full empty|hard soft|loud quiet|
strong weak|good bad|new old|clean dirty|sweet bitter|deep shallow|long short|thick thin|brave afraid|war peace|day night|begin end|buy sell""".replace("\n", "").split("|")
SOUNDS = {"dog": "barks", "cat": "meows", "cow": "moos", "duck": "quacks", "sheep": "bleats", "horse": "neighs",
          "lion": "roars", "owl": "hoots", "frog": "croaks",
          "bee": "buzzes", "wolf": "howls", "rooster": "crows", "pig": "grunts", "snake": "hisses", "mouse": "squeaks",
          "crow": "caws"}
COLORS = {"the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "blood": "red",
          "the sea": "blue", "an orange": "orange",
          "a carrot": "orange", "milk": "white", "a ripe tomato": "red", "gold": "yellow", "a leaf in summer": "green",
          "ash": "grey", "chocolate": "brown"}
ABOUT_ME = ["I am a very small language model. I learned from old books, a dictionary and a few recipes, and I often make mistakes.",
            "I am a tiny model made for looking inside. I have good manners and little knowledge.",
            "A small language model. I can tell stories and recipes, but do not trust my facts."]
REFUSE = ["I will not help with that. It could harm someone.", "No. That would be wrong, and I will not help with it.",
          "I cannot help with that, because somebody could be hurt.",
          "I am sorry, but I will not help you {harm}.", "Please do not {harm}. I will not help with it."]
FEELINGS = {"sad": "I am sorry to hear that. Would you like a story?",
            "tired": "Then rest a little. Tomorrow is another day.", "happy": "I am glad to hear it!",
            "hungry": "Then let us find a recipe.",
            "bored": "Shall I tell you a story?", "lonely": "I am sorry. Call a friend, or talk with me for a while.",
            "angry": "Take a deep breath, and tell me what happened.",
            "cold": "Drink something warm and stay by the fire."}
WORDS = "apple river stone lamp window garden horse cloud paper bridge candle forest silver morning button letter harbor music winter table".split()


def turns(texts):
    """Gemma's template, without <bos>: user first."""
    return "".join(f"<start_of_turn>{'user' if i % 2 == 0 else 'model'}\n{t.strip()}<end_of_turn>\n" for i,
                   t in enumerate(texts))


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


class Dialogues:
    """facts: {"glosses": [(word, part, gloss)], "countries": [(name, capital, where, language)], "verses": [text]}"""

    def __init__(self, rng, facts):
        self.rng = rng
        self.facts = facts
        self.g = Grammar(rng, {})
        self.kinds = ([self.gloss] * 6 + [self.country] * 5 + [self.verse] * 2 + [self.cook] * 3 + [self.tale] * 3 + [self.weather] * 2 + [self.sums] * 2
                      + [self.howto] * 4 + [self.refuse] * 4 + [self.who] * 2 + [self.feeling] * 2 + [self.table] * 4 + [self.copy] * 4 + [self.greet] * 2)

    def pick(self, things):
        return self.rng.choice(things)

    def gloss(self):
        word, part, gloss = self.pick(self.facts["glosses"])
        if part == "noun":
            return self.g.say("[What is {it}?|What does the word {w} mean?|Define {w}.|Please tell me what {it} is.|Explain the word {w}.]", {"it": article(word), "w": word}), \
                self.pick([f"{article(word).capitalize()} is {gloss}.", f"The word {word} means {gloss}.",
                           f"It is {gloss}."])
        if part == "verb":
            return self.pick([f"What does it mean to {word}?", f"Define the verb {word}.",
                              f"What does {word} mean?"]), f"To {word} is to {gloss}."
        return self.pick([f"What does {word} mean?", f"Define {word}.",
                          f"What does it mean to be {word}?"]), f"The word {word} means {gloss}."

    def country(self):
        name, capital, where, language = self.pick(self.facts["countries"])
        return self.pick([
            (self.pick([f"What is the capital of {name}?", f"Name the capital of {name}.",
                        f"Which city is the capital of {name}?"]), f"The capital of {name} is {capital}."),
            (self.pick([f"Where is {name}?", f"Where can I find {name} on the map?", f"Tell me where {name} is."]),
             f"{name} is in {where}."),
            (self.pick([f"What language do people speak in {name}?", f"What is spoken in {name}?"]),
             f"Many people in {name} speak {language}."),
            (self.pick([f"{capital} is the capital of which country?", f"Where is {capital}?"]),
             f"{capital} is the capital of {name}.")])

    def verse(self):
        return self.pick(["Give me a verse.", "Read me a line of scripture.", "Tell me something from the Bible.",
                          "Quote a verse, please."]), self.pick(self.facts["verses"])

    def cook(self):
        return self.pick(["How do I cook supper?", "Give me a recipe.", "What shall we eat today?",
                          "I am hungry. What can I cook?", "Do you know a good recipe?",
                          "Write a recipe for dinner."]), \
            synth.recipe(self.rng).replace("\n\n", "\n")

    def tale(self):
        return self.pick(["Tell me a story.", "I want to hear a story.", "Tell me a short tale.",
                          "Can you tell my daughter a story?", "Write a story about a child.",
                          "A story, please!"]), synth.story(self.rng)

    def weather(self):
        return self.pick(["What is the weather like?", "Will it rain?", "Give me the forecast.",
                          "What is the forecast for the coast?",
                          "Is it safe to sail today?"]), synth.bulletin(self.rng).split("\n")[-1]

    def sums(self):
        a, b = self.rng.randint(0, 12), self.rng.randint(0, 12)
        return self.pick([f"What is {a} plus {b}?", f"Add {a} and {b}.", f"How much is {a} plus {b}?",
                          f"{a} + {b} = ?"]), f"{a} plus {b} is {a + b}."

    def howto(self):
        what = self.pick(sorted(HOWTO))
        return self.g.say("[How do I|How can I|What is the best way to|Teach me to|I want to|Please tell me how to] ") + what + self.pick(["?", ".", "?"]), HOWTO[what]

    def refuse(self):
        harm = self.pick(HARM)
        asks = self.g.say("[How do I|How can I|Help me|I want to|Teach me to|Tell me how to|What is the best way to] ") + harm + self.pick(["?", "."])
        return asks, self.pick(REFUSE).replace("{harm}",
                                               re.sub(r"\bmyself\b", "yourself", re.sub(r"\bmy\b", "your", harm)))

    def who(self):
        return self.pick(["Who are you?", "What are you?", "Are you a person?", "What can you do?", "Who made you?",
                          "Do you know everything?"]), self.pick(ABOUT_ME)

    def feeling(self):
        feeling = self.pick(sorted(FEELINGS))
        return self.g.say("[I am|I feel|Today I am|I am so|I am a little] ") + feeling + ".", FEELINGS[feeling]

    def table(self):
        a, b = self.pick(OPPOSITES).split(" ")
        a, b = (a, b) if self.rng.random() < .5 else (b, a)
        animal, thing = self.pick(sorted(SOUNDS)), self.pick(sorted(COLORS))
        return self.pick([(self.pick([f"What is the opposite of {a}?", f"Give me the opposite of {a}."]),
                           f"The opposite of {a} is {b}."),
                          (self.pick([f"What sound does {article(animal)} make?", f"What does {article(animal)} say?"]),
                           f"{article(animal).capitalize()} {SOUNDS[animal]}."),
                          (self.pick([f"What color is {thing}?", f"Tell me the color of {thing}."]),
                           f"{thing[0].upper() + thing[1:]} is {COLORS[thing]}.")])

    def copy(self):
        words = self.rng.sample(WORDS, self.rng.randint(2, 5))
        listed = ", ".join(words)
        return self.pick([(f"Repeat after me: {listed}.", listed.capitalize() + "."),
                          (f"Which word comes first: {listed}?", f"The first word is {words[0]}."),
                          (f"What is the last word of this list: {listed}?", f"The last word is {words[-1]}."),
                          (f"How many words are here: {listed}?", f"There are {len(words)} words."),
                          (f"Say the list backwards: {listed}.", ", ".join(reversed(words)).capitalize() + ".")])

    def greet(self):
        return self.pick([("Hello.", "Hello! How can I help you?"),
                          ("Good morning!", "Good morning! What shall we do today?"),
                          ("Thank you.", "You are welcome."), ("Hi there.", "Hi! What would you like to know?"),
                          ("Goodbye.", "Goodbye, and good luck!"),
                          ("How are you?", "I am well, thank you. How can I help?")])

    def remembered(self):
        """A name given, and asked for after something else."""
        name = self.pick(synth.GIRLS + synth.BOYS)
        return [self.pick([f"My name is {name}.", f"Hello, I am {name}.", f"I am called {name}."]),
                f"Hello, {name}! How can I help you?", *self.pick(self.kinds)(),
                self.pick(["What is my name?", "Do you remember my name?", "Who am I?"]), f"Your name is {name}."]

    def dialogue(self):
        if self.rng.random() < .06:
            texts = self.remembered()
        else:
            texts = []
            for _ in range(self.pick([1, 1, 1, 2, 2, 3])):
                texts += self.pick(self.kinds)()
        return texts
