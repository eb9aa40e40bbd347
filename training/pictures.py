"""The training set: every emoji drawn small on white, in several colours, with its words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import emoji
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
KEYWORDS = Path("/usr/share/unicode/cldr/common/annotations/en.xml")

SIZE = 32
MARGIN = 1  # pictures are stored this much larger on every side, so that a crop can shift them
INNER_SIZES = (31, 29)  # how large the font's own square is drawn on them
COLOURS = {
    "red": 0.0,
    "orange": 0.075,
    "yellow": 0.145,
    "green": 0.35,
    "blue": 0.59,
    "purple": 0.77,
    "pink": 0.92,
    "brown": 0.06,
    "black": None,
    "white": None,
}
FLAGS_KEPT = frozenset(
    {
        *("france", "germany", "italy", "japan", "china", "india", "brazil", "canada", "spain"),
        *("greece", "sweden", "switzerland", "turkey", "mexico", "australia", "israel", "norway"),
        *("finland", "ukraine", "poland", "united states", "united kingdom", "south korea"),
        "european union",
    }
)
STOPWORDS = frozenset(
    {"a", "an", "and", "at", "for", "in", "is", "it", "of", "on", "or", "s", "the", "to", "with"}
)
# These pictures mean something else in a mirror, or cannot be repainted.
FIXED_WORDS = frozenset(
    {
        *("left", "right", "arrow", "button", "clock", "oclock", "thirty", "facing", "tilted"),
        *("keycap", "flag", "hour", "leftwards", "rightwards", "letters", "letter", "symbol"),
        *("sign", "mark", "text", "reverse", "fast", "forward", "play", "note", "abc"),
    }
)
APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"


@dataclass(frozen=True, slots=True)
class Subject:
    """One emoji in one colour: its pictures at several sizes and the words it answers to."""

    name: str
    words: tuple[str, ...]
    pictures: NDArray[np.uint8]  # [sizes, 3, SIZE + 2 * MARGIN, SIZE + 2 * MARGIN]
    weight: float
    flips: bool
    others: tuple[tuple[str, ...], ...] = field(default=())
    keywords: tuple[str, ...] = ()
    recoloured: bool = False


def subjects(font: Path = FONT, keywords: Path = KEYWORDS) -> list[Subject]:
    """Every subject to train on, originals first, in a fixed order."""
    annotations = _read_keywords(keywords)
    face = ImageFont.truetype(str(font), 109)
    originals: list[Subject] = []
    recoloured: list[Subject] = []
    for character in sorted(emoji.EMOJI_DATA):
        facts = emoji.EMOJI_DATA[character]
        name = _plain(str(facts["en"]))
        if facts["status"] != emoji.STATUS["fully_qualified"] or not _wanted(character, name):
            continue
        drawn = _draw(face, character)
        if drawn is None:
            continue
        names = words_of(name)
        if not names:
            continue
        aliases = {words_of(_plain(alias)) for alias in facts.get("alias", ())} - {names, ()}
        originals.append(
            Subject(
                name=name,
                words=names,
                pictures=_at_all_sizes(drawn),
                weight=_weight(character, name),
                flips=not FIXED_WORDS & set(names) and not character[0].isalnum(),
                others=tuple(sorted(aliases)),
                keywords=annotations.get(character.replace("\ufe0f", ""), ()),
            )
        )
        recoloured += _recoloured(originals[-1], drawn)
    return originals + recoloured


def words_of(text: str) -> tuple[str, ...]:
    """The words of *text* that say something, in lower case."""
    found = re.findall(r"[^\W_]+", text.lower().replace(APOSTROPHE, ""))
    return tuple(word for word in found if word not in STOPWORDS)


def held_out(colour: str, name: str) -> bool:
    """Whether this pair of colour and object is kept from training, to be asked for later."""
    return zlib.crc32(f"{colour} {name}".encode()) % 12 == 0


def _plain(name: str) -> str:
    return name.strip(":").replace("_", " ").replace("-", " ")


def _wanted(character: str, name: str) -> bool:
    if _is_flag(character):
        return name.lower() in FLAGS_KEPT
    if "skin tone" in name or "facing right" in name or "medium" in name.split():
        return False
    return not name.startswith(("family", "kiss man", "kiss woman", "couple with heart "))


def _is_flag(character: str) -> bool:
    """Whether *character* is a country's flag: two regional indicator letters."""
    return "\U0001f1e6" <= character[0] <= "\U0001f1ff"


def _weight(character: str, name: str) -> float:
    """How often a picture is shown; families of near-twins share one subject's attention."""
    words = set(name.lower().replace(APOSTROPHE, "").split())
    if _is_flag(character) or "flag" in words:
        return 0.4
    if words & {"button", "oclock", "thirty", "keycap"}:
        return 0.3
    if name.startswith(("man ", "woman ", "men ", "women ")):
        return 0.35
    if name.startswith("person "):
        return 0.5
    if words & {"arrow", "symbol", "squared", "hand"}:
        return 0.5
    return 1.0


def _draw(face: ImageFont.FreeTypeFont, character: str) -> Image.Image | None:
    """The font's bitmap of *character* on a transparent square; None if it has no single one."""
    if face.getlength(character) > 140:
        return None
    square = Image.new("RGBA", (136, 136), (255, 255, 255, 0))
    ImageDraw.Draw(square).text((0, 4), character, font=face, embedded_color=True)
    return square if square.getchannel("A").getextrema()[1] else None


def _at_all_sizes(drawn: Image.Image) -> NDArray[np.uint8]:
    full = SIZE + 2 * MARGIN
    sizes = []
    for inner in INNER_SIZES:
        white = Image.new("RGBA", drawn.size, (255, 255, 255, 255))
        small = Image.alpha_composite(white, drawn).convert("RGB")
        page = Image.new("RGB", (full, full), (255, 255, 255))
        corner = (full - inner) // 2
        page.paste(small.resize((inner, inner), Image.Resampling.BOX), (corner, corner))
        sizes.append(np.asarray(page).transpose(2, 0, 1))
    return np.stack(sizes)


def _recoloured(original: Subject, drawn: Image.Image) -> list[Subject]:
    """The same object in other colours, where it has one strong colour of its own."""
    words = set(original.words)
    if original.weight < 1 or words & FIXED_WORDS:
        return []
    hsv = np.asarray(drawn.convert("RGB").convert("HSV")).astype(np.float32) / 255
    alpha = np.asarray(drawn.getchannel("A")).astype(np.float32) / 255
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    strength = alpha * saturation * value
    # People and faces keep their colours; so do objects that have none.
    animal = bool(words & {"cat", "dog", "bear", "fox", "frog", "pig", "lion", "tiger", "monkey"})
    human = bool(words & {"face", "person", "man", "woman", "rainbow"})
    coloured = strength.sum() / alpha.sum()
    if coloured < 0.1 or (not animal and (human or coloured < 0.18)):
        return []
    bins, edges = np.histogram(hue, bins=36, range=(0, 1), weights=strength)
    main = edges[int(np.argmax(bins))] + 1 / 72
    # Hues near the main one are the body; the rest (a green leaf) keeps its colour.
    spread = (hue - main + 0.5) % 1 - 0.5
    body = np.clip((0.16 - np.abs(spread)) / 0.04, 0, 1) * np.clip(saturation * 5 - 0.5, 0, 1)
    if (body * strength).sum() < 0.55 * strength.sum():
        return []
    rest = tuple(word for word in original.words if word not in COLOURS)
    made = []
    for colour, target in COLOURS.items():
        near = target is not None and abs((main - target + 0.5) % 1 - 0.5) < 0.05
        same = near and colour != "brown"
        if colour in words or not rest or same or held_out(colour, original.name):
            continue
        h, s, v = _paint(colour, spread * 0.4, saturation, value)
        mixed = [body * new + (1 - body) * old for new, old in ((s, saturation), (v, value))]
        painted = np.stack([np.where(body > 0.3, h % 1, hue), *mixed], axis=-1)
        pixels = Image.fromarray((painted * 255).round().astype(np.uint8), "HSV").convert("RGB")
        pixels.putalpha(drawn.getchannel("A"))
        made.append(
            Subject(
                name=f"{colour} {' '.join(rest)}",
                words=(colour, *rest),
                pictures=_at_all_sizes(pixels),
                weight=1.0,
                flips=original.flips,
                others=tuple(
                    (colour, *other) for other in original.others if not set(other) & set(COLOURS)
                ),
                recoloured=True,
            )
        )
    return made


def _paint(
    colour: str, spread: NDArray[np.float32], s: NDArray[np.float32], v: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Hue, saturation and value of a body painted in *colour*, its shading kept."""
    hue = COLOURS[colour]
    if hue is None:
        shade = v * 0.32 if colour == "black" else 0.80 + v * 0.15
        return np.zeros_like(s), s * 0.04, shade
    tone = np.clip(s * 0.5 + 0.45, 0, 1)
    if colour == "brown":
        return hue + spread * 0.3, tone * 0.8, v * 0.55
    if colour == "pink":
        return hue + spread * 0.5, tone * 0.55, np.clip(v * 0.3 + 0.7, 0, 1)
    return hue + spread, tone, np.clip(v * 0.7 + 0.2, 0, 0.95)


def _read_keywords(path: Path) -> dict[str, tuple[str, ...]]:
    """CLDR's single-word keywords of each character."""
    found: dict[str, tuple[str, ...]] = {}
    for item in ElementTree.parse(path).getroot().iter("annotation"):
        if item.get("type") != "tts" and item.text:
            phrases = [words_of(phrase) for phrase in item.text.split("|")]
            single = sorted({phrase[0] for phrase in phrases if len(phrase) == 1})
            found[item.get("cp", "").replace("\ufe0f", "")] = tuple(single)
    return found
