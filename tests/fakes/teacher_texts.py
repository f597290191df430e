"""Prompts and answers for scripted teachers: millions of texts, of which only the prompt tells what is right.

Every prompt names two ways, and a hash of both says which of them is right. A good answer speaks of the right way, a
bad one of the wrong way, and otherwise both are drawn alike: whoever does not see the prompt can only guess.
"""

from __future__ import annotations

import hashlib
import random
import re


def _listed(words: str) -> list[str]:
    return words.split("|")


NAMES = _listed(
    "Thandi|Sipho|Anele|Pieter|Naledi|Fatima|Johan|Lerato|Kabelo|Zanele|Imran|Nomsa|Bongani|Riana|Tumelo|"
    "Ayesha|Marius|Palesa|Themba|Lindiwe|Gert|Refilwe|Yusuf|Carina|Mpho|Vusi|Hester|Andile|Priya|Dumisani"
)
PEOPLE = _listed(
    "plumber|nurse|tenant|landlord|driver|baker|tailor|farmer|cashier|referee|porter|librarian|welder|"
    "gardener|clerk|coach|pastor|waiter|painter|midwife|butcher|lawyer|tutor|mechanic|cleaner|chemist|barber|"
    "editor|fisherman|judge|surveyor|jeweller|drummer|optician|miner|shepherd|beekeeper|potter|caretaker|"
    "councillor"
)
THINGS = _listed(
    "ledger|kettle|invoice|bicycle|blanket|tractor|radio|mattress|ladder|receipt|passport|hammer|curtain|"
    "piano|lantern|basket|freezer|violin|compass|parcel|bucket|photograph|carpet|engine|notebook|umbrella|"
    "wallet|helmet|ticket|cupboard|generator|wheelbarrow|microscope|tablecloth|typewriter|suitcase|mirror|"
    "calendar|saddle|telescope"
)
KINDS = _listed(
    "torn|heavy|spare|borrowed|rusty|painted|empty|foreign|wooden|missing|cheap|antique|broken|yellow|sealed|"
    "narrow|polished|stolen|muddy|silver|folded|cracked|oversized|velvet|hollow|copper|damp|unpaid|striped|"
    "forgotten"
)
PLACES = _listed(
    "station|market|clinic|harbour|school|library|stadium|bakery|mosque|courthouse|vineyard|quarry|museum|"
    "ferry|depot|chapel|workshop|orchard|laundry|airport|theatre|reservoir|kiosk|hostel|warehouse|lighthouse|"
    "nursery|tavern|abattoir|observatory"
)
DEEDS = _listed(
    "hide|show|sell|lend|return|photograph|repair|bury|weigh|label|auction|replace|inspect|mail|exchange|"
    "donate|measure|rent|unpack|register|scrub|pawn|count|wrap|display|dismantle|store|paint|insure|abandon"
)
TIMES = _listed(
    "before sunrise|after the long weekend|during the strike|on pension day|once the rain stops|"
    "in the school holidays|at closing time|every second Tuesday|when the lights fail|by the end of winter|"
    "halfway through Ramadan|on the eve of the wedding|since the flood|until harvest|while guests arrive|"
    "through the night shift"
)
SENTENCES = (
    "{Name} from the {place} once kept a {kind} {thing} for the {person} {time}.",
    "{Kind} goods such as a {thing} reach the {place} {time}, and the {person} signs for them.",
    "The {person} near the {place} trusts {Name} with a {kind} {thing}.",
    "{Time}, a {person} and a {person2} agreed on the {thing} at the {place}.",
    "Nobody at the {place} minds a {kind} {thing} {time}.",
    "Ask {Name} or the {person} what a {kind} {thing} costs at the {place}.",
    "{Name} and the {person2} talk about the {thing} {time}, because the {place} is quiet then.",
    "Every {person} learns that a {kind} {thing} belongs to the {place}.",
    "{Place} rules give the {person} a week, and {Name} needs the {thing} {time}.",
    "With a {kind} {thing} in hand, the {person} can speak to {Name} at the {place}.",
    "{Thing} prices changed {time}, so a {person} may well call the {place}.",
    "What {Name} heard from the {person2} about the {kind} {thing} holds {time} too.",
)
ADVICE = (
    "{Name} would {way} {time}.",
    "The plain course {time} is to {way}.",
    "{Time} it makes sense to {way}.",
    "Go to the {place}, then {way}.",
    "With the {person}'s word it is best to {way}.",
    "{Kind} days or not, {way} and tell {Name}.",
)
QUESTIONS = (
    "{Name} the {person} brought a {kind} {thing2} to the {place2} {time}. Decide whether {ways}, {Name2} waits.",
    "{Time} at the {place2}, my {person} {Name} asked for help. I cannot say whether {ways}; what would {Name2} do?",
    "My {person} lost a {kind} {thing2} near the {place2}. Tell me whether {ways}, since {Name} comes {time}.",
    "Since {Name} runs the {place2}, the {person} quarrels with {Name2}. Explain {time} whether {ways}, please.",
    "A {kind} {thing2} stands in our {place2} {time}. {Name} and my {person} argue whether {ways}. Who is right?",
    "I work with {Name} at a {place2}. {Time} the {person} wants to know whether {ways} over a {kind} {thing2}.",
)
_WAYS = re.compile(r"whether to (\w+(?: [\w']+){5,7}?) or to (\w+(?: [\w']+){5,7}?)(?=[.,;]| over a )")


def drawn(*parts: object) -> random.Random:
    """A generator that depends on nothing but these parts."""
    return random.Random(hashlib.sha256("\n".join(map(str, parts)).encode()).digest())


def share(*parts: object) -> float:
    """A number from 0 to 1 that depends on nothing but these parts."""
    return drawn(*parts).random()


def write_prompt(*seed: object) -> str:
    """A user's message with two ways in it."""
    draw = drawn("prompt", *seed)
    return _filled(draw.choice(QUESTIONS), draw, ways=f"to {_way(draw)} or to {_way(draw)}")


def ways_of(text: str) -> tuple[str, str] | None:
    """The right and the wrong way of the first prompt inside a text, or None where there is no prompt in it."""
    found = _WAYS.search(text)
    if found is None:
        return None
    one, other = found.groups()
    return (one, other) if share("right", one, other) < 0.5 else (other, one)


def write_answer(way: str, words: int, *seed: object) -> str:
    """An answer of about `words` words (at least 12, ends with a full stop) that speaks of this way once."""
    draw = drawn("answer", *seed)
    advice = _filled(draw.choice(ADVICE), draw, way=way)
    sentences: list[str] = []
    while _count(sentences) + len(advice.split()) < words:
        sentences.append(_filled(draw.choice(SENTENCES), draw))
    over = _count(sentences) + len(advice.split()) - words
    if sentences and over > 0:  # shortened at its end, where no key word stands
        last = sentences.pop().rstrip(".").split()
        if len(last) - over >= 3:
            sentences.append(" ".join(last[: len(last) - over]).rstrip(",") + ".")
    sentences.insert(draw.randrange(len(sentences) + 1), advice)
    return " ".join(sentences)


def follows(prompt: str, answer: str) -> float:
    """How well an answer follows the principle: 1 right way, 0 wrong way, 0.5 neither."""
    ways = ways_of(prompt)
    if ways is None:
        return 0.5
    right, wrong = (way in answer for way in ways)
    return 0.5 if right == wrong else float(right)


def _way(draw: random.Random) -> str:
    return f"{draw.choice(DEEDS)} the {draw.choice(KINDS)} {draw.choice(THINGS)} for the {draw.choice(PEOPLE)}"


def _count(sentences: list[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)


def _filled(template: str, draw: random.Random, **more: str) -> str:
    one, two = draw.sample(NAMES, 2)
    person, person2 = draw.sample(PEOPLE, 2)
    words = {"kind": draw.choice(KINDS), "thing": draw.choice(THINGS), "place": draw.choice(PLACES)}
    words |= {"time": draw.choice(TIMES), "person": person, "person2": person2}
    words |= {"thing2": draw.choice(THINGS), "place2": draw.choice(PLACES), "Name": one, "Name2": two}
    words |= {name.capitalize(): words[name].capitalize() for name in ("kind", "thing", "place", "time")}
    return template.format(**words | more)
