"""The kinds of protected spans, each a regular expression in verbose form."""

from __future__ import annotations

import regex

# A line without any of these has no span of a built-in kind; most Chinese lines are such lines.
TRIGGER = regex.compile(
    "[A-Za-z0-9<&{%`#@~/\\\\\uff10-\uff19\u27e6\u203c-\u2fff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)

# ASCII only: a span ends where Chinese text begins, with or without a space between.
_URL = r"""(?:(?:https?|ftps?|wss?|file)://|mailto:|www\.(?=[A-Za-z0-9]))
           [A-Za-z0-9\-._~:/?\#\[\]@!$&'()*+,;=%]+"""
_EMAIL = r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9._%+\-]++@(?:[A-Za-z0-9\-]++\.)+[A-Za-z]{2,}"
_TAG = r"""<!--.*?--> | </?[A-Za-z][A-Za-z0-9:_.\-]*+(?:\s[^<>]*+|/)?> """
_ENTITY = r"&(?:\#[0-9]{1,7}|\#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_CODE = r"(?<!`)(?:`[^`\n]++`|``(?!`)(?:[^`\n]|`(?!`))++``|```(?!`)(?:[^`]|`(?!``))++```)(?!`)"
_PRINTF = r"""%(?:\([A-Za-z_]\w*\))?(?:[0-9]+\$)?[\-+\#0]*(?:[0-9]+|\*)?(?:\.(?:[0-9]+|\*))?
              (?:hh|h|ll|l|L|z|j|t|q)?[sdiufFgGxXoceEaAp@](?![A-Za-z0-9_])"""
_CALL = r"\$t\([^()\s]*\)"
_VERSION = r"(?<![A-Za-z0-9.])[vV]?[0-9]+(?:\.[0-9]++){2,}+(?:[\-+.]?[A-Za-z0-9]++)*+"
_VERSION_V = r"(?<![A-Za-z0-9.])[vV][0-9]+(?:\.[0-9]+)*(?:-[A-Za-z0-9.]+)?(?![A-Za-z0-9])"
_DATE = r"""(?<![0-9A-Za-z./\-])[0-9]{4}(?P<sep>[-/.])[0-9]{1,2}(?P=sep)[0-9]{1,2}
            (?:[T\ ][0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?(?:\.[0-9]+)?(?:Z|[+\-][0-9]{2}:?[0-9]{2})?)?
            (?![0-9])"""
_TIME = r"(?<![0-9A-Za-z:.])[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,3})?)?(?![0-9:])"
_PATH = r"""(?<![A-Za-z0-9_./\\:<\-])(?:
              [A-Za-z]:\\[A-Za-z0-9_.\-\\]*[A-Za-z0-9_.\-\\]
            | (?:~|\.{1,2})?/[A-Za-z0-9_.\-]++(?:/[A-Za-z0-9_.\-]*+)*+
            | (?:[A-Za-z0-9_\-]++/)*+[A-Za-z0-9_\-]++(?:\.[A-Za-z][A-Za-z0-9_]*+)++
            )"""
_HASHTAG = r"\#[^\s\#]{1,30}\# | \#[A-Za-z0-9_]+ | \#\w+(?=\s|$)"
_MENTION = (
    r"(?<![A-Za-z0-9_.])@[A-Za-z0-9_][A-Za-z0-9_.\-]* | (?<![A-Za-z0-9_.])@\w+(?=[\s:：,，]|$)"
)
_IDENTIFIER = r"(?<![A-Za-z0-9_])[A-Za-z_][A-Za-z0-9_]*+\(\)"
_SNAKE = r"""(?<![A-Za-z0-9_])(?=[0-9_]*+[A-Za-z])[A-Za-z0-9]++(?:_[A-Za-z0-9]++)++
             (?![A-Za-z0-9_])"""
# A letter and a digit in one word: X-200B, MP3, COVID-19. Not 25kg or 3pm: those are amounts.
_PRODUCT = r"""(?<![A-Za-z0-9_.\-])(?=[A-Za-z\-]*+[0-9])
               (?:[A-Za-z][A-Za-z0-9]*+(?:-[A-Za-z0-9]++)*+|[0-9]++[A-Z][A-Za-z0-9]*+)
               (?![A-Za-z0-9_])"""
# Followed by 万 or 亿 a number is an amount, and converted by value.
_DIGITS = r"""(?<![0-9A-Za-z.,])(?:[0-9０-９]{5,}+|[0-9]{1,3}(?:,[0-9]{3})++)(?:\.[0-9]+)?
              (?![0-9A-Za-z])(?!\s*[十百千万亿兆])"""
_EMOJI = r"""(?:\p{Regional_Indicator}{2}
            | [0-9\#*]\uFE0F?\u20E3
            | (?:\p{Emoji_Presentation}|\p{Extended_Pictographic}\uFE0F|[\U0001F000-\U0001FAFF])
              (?:\uFE0F|\p{Emoji_Modifier}|[\U000E0020-\U000E007F]+)?
              (?:\u200D\p{Extended_Pictographic}(?:\uFE0F|\p{Emoji_Modifier})?)*
            )+"""

# In order of precedence: at one position the first that matches wins.
KINDS: dict[str, str] = {
    "symbol": "\u27e6[0-9]\u27e7",
    "code": _CODE,
    "url": _URL,
    "email": _EMAIL,
    "tag": _TAG,
    "entity": _ENTITY,
    "placeholder": rf"{_PRINTF} | {_CALL}",
    "date": _DATE,
    "time": _TIME,
    "version": rf"{_VERSION} | {_VERSION_V}",
    "path": _PATH,
    "identifier": rf"{_IDENTIFIER} | {_SNAKE}",
    "product": _PRODUCT,
    "number": _DIGITS,
    "hashtag": _HASHTAG,
    "mention": _MENTION,
    "emoji": _EMOJI,
}
ANY_KIND = regex.compile(
    "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in KINDS.items()),
    regex.VERBOSE | regex.DOTALL,
)
