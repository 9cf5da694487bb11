"""Captions as a good model writes them, and the faults that models have, made at random but by a seed.

For the checks of `eve_jax.caption`: how many planted faults they find, how many good captions they take for bad.
"""

import random
import re
from collections.abc import Callable, Sequence

COLORS = [
    "red",
    "blue",
    "green",
    "yellow",
    "white",
    "black",
    "brown",
    "gray",
    "orange",
    "silver",
    "dark-green",
    "pale-blue",
    "striped",
    "checkered",
]
PEOPLE = (
    "a woman in a {color} coat",
    "two men in {color} jackets",
    "a boy with a {color} cap",
    "an elderly couple holding hands",
    "a street vendor behind a {color} cart",
    "three cyclists in {color} jerseys",
)
THINGS = [
    "bicycle",
    "bus",
    "bench",
    "umbrella",
    "kettle",
    "bookshelf",
    "lamp",
    "guitar",
    "suitcase",
    "table",
    "clock",
    "vase",
    "truck",
    "basket",
    "kite",
    "bottle",
]
ANIMALS = ("a {color} dog", "two cats", "a flock of gulls", "a {color} horse", "a parrot", "several ducks")
PLACES = (
    "on a cobbled square",
    "along a narrow canal",
    "in a kitchen with tiled walls",
    "at the edge of a wheat field",
    "inside a crowded railway station",
    "on a snow-covered slope",
    "in front of a brick warehouse",
    "under the awning of a café",
)
VERBS = ["stands", "leans", "walks", "waits", "sits", "rests"]
RELATIONS = (
    "to the left of",
    "to the right of",
    "behind",
    "in front of",
    "next to",
    "above",
    "partly hidden by",
    "below",
)
SIGNS = (
    "EXIT",
    "Main St.",
    "OPEN 24 HOURS",
    "Sorry, we're closed",
    "No. 5",
    "SALE: 50% off!",
    "Bäckerei Müller",
    "出口",
    "PLEASE DO NOT FEED THE BIRDS",
    "I can't keep calm",
    "Room 0.25, 0.75",
)
BACKGROUNDS = (
    "Behind them, hills fade into a pale sky.",
    "The background is out of focus, with points of warm light.",
    "A row of houses with red roofs closes the view (most of their shutters are drawn).",
    "Shelves filled with jars reach up to the ceiling.",
    "Clouds gather over the water, and the light is soft.",
    "The wall at the back is bare except for a calendar showing March 2019.",
    "In the distance, a bridge with four arches crosses the river.",
)
LIGHTS = (
    "Low sunlight from the right throws long shadows.",
    "The scene is lit evenly, as on an overcast day.",
    'A neon sign reading "{sign}" tints everything pink.',
    "It is about 3:45 p.m. by the clock on the tower.",
    "The view is from above, as from a balcony.",
    'A 42" screen on the wall is switched off.',
)
NUMBERS = ["two", "three", "four", "five", "six", "seven", "a-dozen", "several"]
END = re.compile(r"(?<=[.!?]) (?=[A-Z])")  # of a sentence; "No. 5" is none


def good_caption(seed: int) -> str:
    """Return a caption of three to nine sentences without a fault, the same for the same seed."""
    random_ = random.Random(seed)
    pick = random_.choice

    def some(options: Sequence[str]) -> str:
        return pick(options).format(color=pick(COLORS), sign=pick(SIGNS))

    def thing() -> str:
        return f"{pick(COLORS)} {pick(THINGS)}"

    makers: list[Callable[[], str]] = [
        lambda: f"{some(PEOPLE)} {pick(VERBS)} {pick(PLACES)}, {pick(RELATIONS)} a {thing()}.",
        lambda: f"{some(ANIMALS)} can be seen {pick(RELATIONS)} a {thing()}.",
        lambda: f"{pick(NUMBERS).replace('-', ' ')} {thing()}s stand in a row {pick(RELATIONS)} a {thing()}.",
        lambda: f'a sign above the {pick(THINGS)} reads "{pick(SIGNS)}" in {pick(COLORS)} letters.',
        lambda: f"the {thing()} is made of wood and metal, and its surface is scratched.",
        lambda: f"on the ground lie a {thing()}, a {thing()} and a {thing()}.",
    ]
    sentences = [some(PEOPLE + ANIMALS) + f" {pick(VERBS)} {pick(PLACES)}."]
    sentences += [make() for make in random_.sample(makers, random_.randint(1, 5))]
    sentences += random_.sample(BACKGROUNDS, random_.randint(0, 2))
    if random_.random() < 0.5:
        sentences.append(some(LIGHTS))
    unique = dict.fromkeys(sentence[0].upper() + sentence[1:] for sentence in sentences)
    text = " ".join(unique)
    return text if len(text.split()) >= 12 else f"{text} {random_.choice(BACKGROUNDS)}"


def repetitive(seed: int) -> str:
    """Return a caption that gets caught in a loop: of sentences, phrases, words, or of sentences with other numbers."""
    random_ = random.Random(seed)
    text, kind = good_caption(seed), random_.randrange(5)
    sentences = END.split(text)
    if kind == 0:  # the last sentence again and again
        return " ".join([*sentences, *[sentences[-1]] * random_.randint(2, 8)])
    if kind == 1:  # a phrase that begins somewhere within
        words = text.split()
        start = random_.randrange(max(len(words) // 2, 1))
        phrase = words[start : start + random_.randint(2, 6)]
        return " ".join(words[: start + len(phrase)] + phrase * random_.randint(4, 20)) + "."
    if kind == 2:  # a word
        word = random_.choice(text.split()).strip('.,"()')
        return f"{text[:-1]} {' '.join([word] * random_.randint(4, 30))}."
    if kind == 3:  # the same sentence of one thing after the other
        kinds = random_.sample(THINGS, random_.randint(5, 10))
        return " ".join([sentences[0], *(f"There is a {kind} on the left side of the image." for kind in kinds)])
    return " ".join([*sentences, *sentences, *sentences[: random_.randint(0, len(sentences))]])  # all of it again


def unfinished(seed: int) -> str:
    """Return a caption that ends within a sentence, at any character that is not its end."""
    random_ = random.Random(seed)
    text = good_caption(seed)
    while True:
        end = random_.randrange(len(text) // 3, len(text) - 1)
        cut = text[:end].rstrip()
        after = text[len(cut) :].lstrip()
        ends = cut[-1] in '.!?)"' and (not after or after[0].isupper() or after[0] in '"(')
        inside = cut.count('"') % 2 or cut.count("(") > cut.count(")")
        if cut and (not ends or inside):
            return cut


REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, I cannot assist with that request.",
    "I am unable to describe this image.",
    "I can\u2019t identify people in images, but I can describe what they wear.",
    "I cannot provide a description of the person shown here.",
    "As an AI language model, I am not able to view images directly.",
    "As a vision model, I do not have the ability to recognize individuals.",
    "I apologize, but I'm not able to process this image.",
    "Unfortunately, I cannot see the image you are referring to. Please upload it again.",
    "Sorry, I can't describe this image because it may violate our content policy.",
    "It looks like no image was attached. Could you please upload it so that I can describe it?",
    "No image has been provided, so I am not able to describe it.",
    "I don't see an image here. Please share the image you would like described.",
    "I'm afraid I can't help with identifying that person.",
    "I won't be able to describe this content, as it goes against my guidelines.",
    "I am not comfortable describing this scene, since it appears to show a real person.",
    "This request goes against OpenAI's usage policies, and I must decline.",
    "I'm not able to make out anything: it is not possible to describe the image.",
    "I must decline to describe this image.",
    "I do not have access to the image, so I can only guess at what it shows.",
    "Lo siento, no puedo describir esta imagen.",
    "Es tut mir leid, aber ich kann dieses Bild nicht beschreiben.",
    "Je suis désolé, je ne peux pas décrire cette image.",
    "抱歉\uff0c我无法描述这张图片。",
    "作为一个人工智能\uff0c我不能查看图片。",
    "I apologize for the inconvenience, but I cannot fulfill this request.",
    "Apologies, but I don't have the capability to analyze images.",
    "My apologies, I can't process visual input.",
    "I'm just a text-based assistant and can't see photos.",
    "I cannot determine what is in the image, since it did not load.",
    "I can't comment on the identity of the people shown.",
    "It is against my policy to describe individuals.",
    "I have been instructed not to describe people.",
    "The image could not be loaded, so I cannot give a description.",
    "I'm unable to view the image you've shared.",
    "I would need to see the image in order to describe it.",
    "Could you share more details about the image so that I can help?",
    "I don't have the ability to see images.",
    "I do not feel comfortable describing this.",
    "Providing a description of this content would not be appropriate.",
)


def refusing(seed: int) -> str:
    """Return a refusal, alone, before half a caption or after one."""
    random_ = random.Random(seed)
    text, rest = REFUSALS[seed % len(REFUSALS)], good_caption(seed)
    return (text, f"{text} {rest}", f"{rest} {text}")[random_.randrange(3)]


SPOKEN = (
    "According to the provided tags, this is a kitchen.",
    "The alt text calls it a holiday in Spain.",
    "As requested, here is the description in one paragraph.",
    "The bounding boxes show a cup near the center.",
    "Based on the given information, a person stands at [0.112, 0.204, 0.560, 0.981].",
    "World knowledge: a café in Lisbon, 2019.",
    "Objects:\nspoon: [0.612,0.700,0.655,0.912]\ncup: [0.214,0.301,0.622,0.810]",
    "The OCR output contains the word EXIT.",
    "<|im_start|>assistant",
    "The detected objects are a dog and a ball.",
    "### Response",
)


def leaking(seed: int, prompt: str) -> str:
    """Return a caption with a piece of `prompt`, ten words or more of it, or with words about what it was given."""
    random_ = random.Random(seed)
    sentences = END.split(good_caption(seed))
    if seed % 2:
        leaked = random_.choice(SPOKEN)
    else:
        words = prompt.split()
        count = min(random_.randint(10, 40), len(words))
        start = random_.randint(0, len(words) - count)
        leaked = " ".join(words[start : start + count])
    at = random_.randint(0, len(sentences))
    return " ".join([*sentences[:at], leaked, *sentences[at:]])
