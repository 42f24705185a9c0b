"""Three registers of our own: recipes, weather bulletins and stories for children.

No cookbook, forecast or nursery tale with clean rights is among the packages, and the demonstrations want them: they
are the registers that a layman recognises at a glance.  Each is a grammar (grammar.py) loose enough that a sentence is
seldom met twice: the order of the parts, their number and their wording all vary, so that a feature of the model can
mark a topic rather than a slot of a form.  What must agree does: an ingredient named in the method stands in the list,
frost comes with frosty temperatures, a hero keeps name, pronoun and toy until the end.

Held-out documents come from the same grammars; losses on these registers are printed apart from the natural ones.
"""
from grammar import Grammar

# ---------------------------------------------------------------------------------------------------- recipes

MAINS = {
    "soup": "onion leek carrot potato tomato pea bean mushroom pumpkin lentil barley celery cabbage chicken fish".split(),
    "stew": "beef lamb chicken bean fish mutton rabbit lentil pork turnip".split(),
    "pie": "apple cherry plum meat cheese onion leek pear blackberry pumpkin chicken fish".split(),
    "cake": "honey lemon almond chocolate carrot ginger plum apple walnut orange".split(),
    "bread": "rye wheat corn oat raisin barley walnut onion potato".split(),
    "salad": "cucumber tomato bean cabbage potato beet carrot radish lentil apple".split(),
    "pancakes": "buckwheat potato oat apple corn pumpkin".split(),
    "sauce": "tomato mushroom cheese garlic butter mustard cherry onion".split(),
    "pudding": "rice bread plum chocolate lemon almond apple".split(),
    "dumplings": "potato cheese cabbage plum meat mushroom".split(),
    "roast": "beef lamb chicken goose pork turkey duck".split(),
}
SWEET = {"cake", "pudding"}
SAVOURY = """butter|salt|pepper|garlic|onion|parsley|thyme|rosemary|bay leaves|olive oil|vinegar|cream|milk|eggs|flour|mustard|
cheese|rice|lemon juice|celery|dill|paprika|white wine|chicken stock|breadcrumbs|sour cream|chives|nutmeg""".replace("\n", "").split("|")
SUGARY = """butter|sugar|brown sugar|salt|eggs|flour|milk|cream|honey|yeast|vanilla|cinnamon|nutmeg|ginger|cloves|raisins|
lemon peel|orange peel|almonds|walnuts|baking powder|cocoa|cornstarch""".replace("\n", "").split("|")
HOW_MUCH = {
    "pinch": "[a pinch of|a little|a small spoon of|half a teaspoon of|a teaspoon of]",
    "wet": "[a cup of|half a cup of|two cups of|a quarter of a litre of|200 ml of|three tablespoons of|a tablespoon of|a splash of]",
    "dry": "[a cup of|half a cup of|100 grams of|250 grams of|two tablespoons of|three cups of|a handful of|a pound of|60 g]",
    "leaf": "[a handful of|a sprig of|some|two spoons of chopped|a bunch of]",
}
KIND = {thing: kind for kind, things in {
    "pinch": "salt|pepper|nutmeg|cinnamon|cloves|ginger|paprika|vanilla|yeast|baking powder",
    "wet": "milk|cream|vinegar|olive oil|lemon juice|white wine|chicken stock|sour cream|honey",
    "leaf": "parsley|thyme|rosemary|bay leaves|dill|chives|celery|lemon peel|orange peel",
}.items() for thing in things.split("|")}
KITCHEN = {
    "minutes": "five|eight|ten|twelve|fifteen|twenty|thirty|forty|10|25|45|60".split("|"),
    "pan": "a large pan|a heavy pot|a deep pan|a saucepan|an iron skillet|a pot with a lid|a wide pan".split("|"),
    "dish": "a buttered dish|a greased tin|a baking dish|a round tin|an earthen dish|a shallow dish".split("|"),
    "heat": "low heat|gentle heat|medium heat|high heat|a small flame".split("|"),
    "oven": "a hot oven|a moderate oven|the oven|an oven at 180 degrees|an oven at 200 degrees|a slow oven".split("|"),
    "done": "it is tender|it is golden brown|it thickens|it smells sweet|the edges are crisp|a knife comes out clean|it is soft".split("|"),
    "side": "fresh bread|boiled potatoes|a green salad|rice|pickles|butter|warm milk|a glass of cider|mustard|dumplings".split("|"),
}
PREPARE = ["[Wash|Peel|Clean] the {main} and [cut|chop|slice] it [into small pieces|finely|into thick slices|into cubes].",
           "Chop the {main} [finely|roughly] and set it aside.", "Prepare the {main}[| the night before].",
           "[First |]{cut} the {main} and put it in a bowl.",
           "Rub the {main} with {x} and leave it for {minutes} minutes."]
START = ["Melt the {x} in {pan} over {heat}.", "Heat {pan} over {heat} and add the {x}.",
         "[Mix|Combine|Stir together] the {x} and the {y} in a bowl.",
         "Beat the {x} with the {y} until [smooth|pale and thick|light].", "Warm the {x} [slowly|gently] in {pan}."]
MIDDLE = ["Add the {main} and [cook|fry|stir] for {minutes} minutes[| over {heat}].",
          "Stir in the {y} [little by little|a spoon at a time|and the {z}].",
          "Pour in [the {y}|some water] and bring [it |everything |]to a boil.",
          "Cover [the pan|the pot] and simmer until {done}.",
          "[Turn down the heat and|Then] let it [simmer|rest|cook slowly] for {minutes} minutes.",
          "Season with [the {z}|salt and pepper|pepper and a little {z}].",
          "Skim off the [fat|foam] [now and then|with a spoon].",
          "[Taste it and add|Add] more {z} if [needed|you like]."]
BAKING = ["Fold in the {y}[, but do not stir too much| with a wooden spoon].",
          "Knead the dough for {minutes} minutes on a floured board.",
          "Let the dough rise in a warm place for [an hour|{minutes} minutes].",
          "Pour the [mixture|batter] into {dish}.",
          "Bake [it |]in {oven} [for {minutes} minutes|until {done}].", "[Brush the top with|Sprinkle over] the {z}.",
          "Roll out the dough and line {dish}.",
          "Whisk the {x} and the {y} [together |]until [they are thick|no lumps are left]."]
END = ["Serve [hot|warm|at once|cold], with {side}.",
       "Let it cool [in the tin |on a rack |]before you [slice|cut|serve] it.",
       "[Sprinkle with|Scatter over] the {z} and serve.",
       "It [tastes better|is even better] the next day.", "Serve with {side}.",
       "Remove the [bone|string|lid] and carve[| at the table].",
       "Keep it [in a cool place|covered] and eat it within [two|three] days."]
INTRO = ["A [simple|plain|good|quick|rich] dish for [a cold day|a large family|Sundays|the harvest|a winter evening].",
         "An old [family|farm|country] recipe[| from the hills|, slightly changed].",
         "[Best|Good] eaten [warm|cold|on the same day|with {side}].", "It keeps well for [two|three|five] days.",
         "[Children|Guests|Sailors|Farmers] like it.",
         "This is [cheap|easy|slow work|worth the trouble][|, and needs only one pot].",
         "My [grandmother|aunt|uncle|neighbor] made it [every autumn|at Christmas|when it rained]."]


def recipe(rng):
    kind = rng.choice(sorted(MAINS))
    main = rng.choice(MAINS[kind])
    larder = SUGARY if kind in SWEET or (kind in ("pie", "bread", "pancakes") and main not in ("meat", "cheese",
                                                                                               "onion", "leek",
                                                                                               "chicken",
                                                                                               "fish")) else SAVOURY
    things = [t for t in rng.sample(larder, rng.randint(4, 8)) if t != main]
    g = Grammar(rng, dict(KITCHEN, cut=["wash", "peel", "chop", "slice", "trim"]))

    def bound():
        x, y, z = rng.sample(things, 3)
        return dict(main=main, x=x, y=y, z=z)

    title = rng.choice([f"{main} {kind}",
                        f"{kind} of {main}" if kind in ("soup", "stew", "pie", "roast",
                                                                          "pudding") else f"{main} {kind}",
                        f"{rng.choice(['plain', 'winter', 'country', 'quick', 'rich', 'baked', 'spiced', 'summer'])} {main} {kind}"])
    lines = [title.title() if rng.random() < .7 else title.upper(), ""]
    head = []
    if rng.random() < .7:
        head.append(g.say("[Serves|For|Enough for] [two|three|four|six|eight|ten][| people]."))
    head += [g.say(t) for t in g.some(INTRO, 0, 2)]
    if head:
        lines += [" ".join(head), ""]
    lines.append(rng.choice(["Ingredients:", "You need:", "Ingredients", "Take:", "What you need:"]))
    dash = rng.choice(["- ", "- ", "* ", ""])
    lines.append(dash + g.say("[one pound of|500 grams of|two pounds of|some|a kilo of|300 g] ") + main)
    lines += [dash + g.say(HOW_MUCH[KIND.get(t, "dry")]) + " " + t for t in things]
    bakes = kind in ("pie", "cake", "bread", "pudding", "pancakes")
    steps = g.some(PREPARE, 0 if bakes else 1, 1) + g.some(START, 1, 2) + g.some(BAKING if bakes else MIDDLE, 2, 5)
    if kind == "roast":
        steps.append("Roast it in {oven} until {done}, [turning it once|basting it with its own fat].")
    steps += g.some(END, 1, 2)
    steps = [g.say(s, bound()) for s in steps]
    lines.append("")
    if rng.random() < .6:
        lines.append(rng.choice(["Method:", "How to make it:", "Method", "Directions:"]))
        lines += [f"{i + 1}. {s}" for i, s in enumerate(steps)]
    else:
        lines.append(" ".join(steps))
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------- weather

AREAS = """the northern coast|the southern bay|the western isles|the eastern shore|the open ocean|the river mouth|the high hills|
the lowlands|the harbor|the channel|the inland valleys|the cape|the lakes|the mountain passes|the delta|the islands|the plains|
the city|the outer banks|the fishing grounds|the straits|the moors""".replace("\n", "").split("|")
SEASONS = [("winter", -14, 5), ("spring", 2, 17), ("summer", 14, 33), ("autumn", 3, 18)]
FORCES = [("calm", "smooth"), ("light", "slight"), ("gentle", "slight"), ("moderate", "moderate"),
          ("fresh", "moderate"), ("strong", "rough"),
          ("near gale", "very rough"), ("gale force", "very rough"), ("storm force", "high")]
SKY = {"frost": ["snow", "light snow", "snow showers", "freezing fog", "sleet", "frost in the [valleys|morning]",
                 "ice on the roads"],
       "wet": ["rain", "light rain", "drizzle", "heavy showers", "fog", "mist", "low cloud", "rain and wind", "hail",
               "thunder", "scattered showers"],
       "dry": ["clear sky", "sunshine", "haze", "a few clouds", "high thin cloud", "broken cloud", "a dry day",
               "sunny spells"]}
WEATHER = {"when": "at times|at first|later|until dawn|by noon|by evening|after midnight|in the afternoon|during the night|before sunrise|all day".split("|"),
           "way": "north|south|east|west|northwest|southwest|northeast|southeast".split("|"),
           "day": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday".split("|")}
FORECAST = ["[Wind|Winds] [from the |]{way}, {force}[, {shift}|].",
            "{^sky} {when}[, spreading {way}|, clearing {when}|].",
            "[Temperature|Temperatures around] {t} degrees[| in the shade|, lower on the hills].",
            "Visibility [good|moderate|poor|very poor][| {when}].", "Sea {sea}[, swell from the {way}|].",
            "Barometer {p}, [rising|falling|steady|falling slowly|rising quickly]."]
NEWS = ["[A low|A high|A depression|An area of high pressure] [lies|is moving] {way} of {area} [and will deepen|and is filling slowly|with little change].",
        "[Small boats|Fishing boats|Ships] should [stay in harbor|watch the wind|keep to the lee of {area}].",
        "[Roads over the hills|Paths along the shore] may be [slippery|flooded|closed].",
        "The [front|rain|wind|cold air] will reach {area} {when}.", "[Tomorrow|The day after]: {sky}, {t} degrees.",
        "Sunset at [five|six|seven|eight|nine] o'clock; [high|low] tide [at noon|at dawn|before midnight]."]


def bulletin(rng):
    season, low, high = rng.choice(SEASONS)
    middle = rng.randint(low, high)
    g = Grammar(rng, WEATHER)

    def bound(area):
        t = max(low, min(high, middle + rng.randint(-3, 3)))
        skies = SKY["frost"] + SKY["dry"] if t <= 0 else SKY["wet"] + SKY["dry"]
        force, sea = rng.choice(FORCES)
        return dict(area=area, t=str(t), sky=rng.choice(skies), force=force, sea=sea, p=str(rng.randint(975, 1040)),
                    shift=rng.choice(["rising", "falling", "veering {way}", "backing {way}", "steady"]) + " [|{when}]")

    areas = rng.sample(AREAS, rng.randint(1, 5))
    lines = [g.say("[WEATHER BULLETIN|FORECAST|WEATHER REPORT|SHIPPING FORECAST], [{day}|{day} [morning|evening|night]|%s]" % season)]
    if rng.random() < .6:
        lines.append(" ".join(g.say(t, bound(rng.choice(AREAS))) for t in g.some(NEWS, 1, 2)))
    for area in areas:
        parts = g.some(FORECAST, 3, 6)
        if rng.random() < .4:
            rng.shuffle(parts)
        b = bound(area)
        begin = g.say("[{^area}:|Forecast for {area}:|For {area}:|{^area}.|Over {area}:]", b)
        lines.append(begin + " " + " ".join(g.say(p, b) for p in parts))
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------- stories

GIRLS = "Anna Mary Lucy Ruth Clara Ellen Nora Ida Rosa Jane Lily Emma Alice Grace".split()
BOYS = "Tom Jack Peter Ben Sam Hugo Max Leo Henry Oscar Will Paul Felix Robin".split()
TALE = {
    "pet": "dog cat rabbit bird pony duck goat mouse hen lamb frog turtle".split(),
    "petname": "Biscuit Pepper Star Button Snow Shadow Plum Whistle Moss Acorn".split(),
    "color": "red blue green yellow white black brown silver golden".split(),
    "toy": "ball kite hat boat lamp key book box bell coin drum scarf cup flute ring".split(),
    "place": "garden|forest|river|market|school|hill|barn|beach|mill|well|bridge|meadow|orchard|harbor|old tower".split("|"),
    "sky": "sunny rainy cold windy warm foggy snowy bright grey".split(),
    "mood": "kind brave curious quiet clever shy stubborn cheerful careless".split(),
    "food": "soup bread cake pie pancakes apples porridge honey cheese plums".split(),
    "kin": "mother father grandmother brother sister aunt uncle grandfather".split(),
    "grown": "miller|baker|fisherman|teacher|old woman|shepherd|sailor|blacksmith|king|gardener|postman".split("|"),
    "beast": "fox owl bear wolf crow hedgehog deer squirrel".split(),
}
OPENING = ["[Once upon a time|Long ago|Once|In a village by the {place}] there [was|lived] a [little|small|young] {child} [named|called] {n}.", "{n} was {a:mood} {child} who lived [near|behind|beside] the {place}[| with {his} {kin}].",
           "There was [once |]{a:mood} {child}, and {his} name was {n}."]
OWNS = ["{^he} had {a:color} {toy} and {a:pet} called {petname}.",
        "{^his} best friend was {a:pet} named {petname}[|, who followed {him} everywhere].",
        "[For {his} birthday|One day] {his} {kin} gave {him} {a:color} {toy}.",
        "What {he} loved most was {his} {color} {toy}."]
GOING = ["One {sky} [day|morning|evening] {n} took the {color} {toy} to the {place}.",
         "[Every|Each] [morning|day|evening] {n} and {petname} walked to the {place}.",
         "When the {sky} weather came, {n} went [out |]to the {place}[| with {petname}].",
         "{n} wanted to see the {place2}, so {he} [put on {his} boots|packed some {food}] and set out."]
TROUBLE = ["But the {toy} was [gone|lost|not there]! {n} looked [under a tree|behind a wall|in the grass|everywhere], but {he} could not find it.", "Suddenly the {toy} fell into the [water|mud|well] and {n} began to cry.",
           "There {he} [met|saw] {n2}, who was [very |]sad because [the road was long|nobody would play|{his2} {kin} was ill|{he2} had lost {his2} way].", "[Then|All at once] {a:beast} [jumped|came] out of the {place2} and [took|stole|wanted] the {toy}.",
           "It [grew|got] dark, and {n} did not know the way home.",
           "{petname} ran away and did not come back[| that night].",
           "But {n} and {n2} [wanted|both wanted] the {toy}, and they [quarreled|shouted|would not share]."]
TALK = ['"[Do not worry|Do not cry|Be brave]," said {n2}. "We will [look for the {toy}|find it|go] together."',
        '"Can you help me?" asked {n}. "[Of course|Yes|I will try]," said {n2}.',
        '"What is the matter?" asked the {grown}. "I lost my {color} {toy}," said {n}.',
        '"[Please|Oh, please], give it back!" [cried|said] {n}. The {beast} [laughed|thought for a while|shook its head].', '"Why are you [crying|sad|so late]?" asked {his} {kin}.', '"I am [hungry|tired|cold|afraid]," said {n2}, so {n} gave {him2} some {food}.',
        '"You must be [patient|quiet|careful]," said the {grown}, "and then it will come."']
TURN = ["Then {petname} the {pet} ran to the {place2} and came back with the {color} {toy}.",
        "They looked [all day|for hours], and at last {petname} found the {toy} [in|near|behind] the {place2}.",
        "{n2} gave {n} the {color} {toy}, and {n} smiled.",
        "The {grown} [knew the way|had a lamp|took them by the hand] and brought them [home|to the {place2}].",
        "{n} climbed [a tree|the hill|the wall] and saw the {toy} [shining|lying] in the sun.",
        "So {n} shared the {food}, and the {beast} [gave back the {toy}|became {his} friend].",
        "{n} thought about it and said [sorry|that {he} was sorry], and {n2} said [sorry|it] too."]
CLOSE = ["{n} was so happy that {he} [hugged {his} {pet}|danced|laughed aloud].",
         "{n} and {n2} became [good|best] friends.", "From that day on {n} always kept the {toy} close to {him}.",
         "They all went home and had {food} for supper.",
         "And {n} never [told a lie|was careless|went there alone] again.",
         "That night {n} [slept well|dreamed of the {place}].",
         "{^his} {kin} [was|were not even] [proud|glad|angry] [of|with] {him}.", "The end."]


def story(rng):
    girl, girl2 = rng.random() < .5, rng.random() < .5
    n = rng.choice(GIRLS if girl else BOYS)
    n2 = rng.choice([x for x in (GIRLS if girl2 else BOYS) if x != n])
    kept = {key: rng.choice(TALE[key]) for key in ("pet", "petname", "color", "toy", "beast", "grown", "kin", "food")}
    place, place2 = rng.sample(TALE["place"], 2)
    her, his = ("she", "her", "her"), ("he", "his", "him")
    b = dict(kept, n=n, n2=n2, place=place, place2=place2, child="girl" if girl else "boy")
    b.update(zip(("he", "his", "him"), her if girl else his))
    b.update(zip(("he2", "his2", "him2"), her if girl2 else his))
    g = Grammar(rng, TALE)
    parts = [rng.choice(OPENING), OWNS[0]] + g.some(OWNS[1:], 0, 1) + g.some(GOING, 1, 2) + g.some(TROUBLE, 1, 2)
    talk, turn = g.some(TALK, 1, 2), g.some(TURN, 1, 2)
    parts += talk + turn + g.some(CLOSE, 1, 3)
    sentences = [g.say(p, b) for p in parts]
    if rng.random() < .4:               # in paragraphs, as a book would set it
        cut = rng.randint(2, 4)
        return " ".join(sentences[:cut]) + "\n\n" + " ".join(sentences[cut:])
    return " ".join(sentences)
