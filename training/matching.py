"""Is an answer the accepted one? Wordings of the same name, number and date count as equal.

tests/benchmarks/answer_matching.py says how often each rule agrees with people, beside SQuAD's exact match.
"""

import re
import string
import unicodedata

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’“”´`")
_WORDS = re.compile(r"[^\W_]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_SENTENCE_END = re.compile(r"(?<=[\w)\"”])[.!?](?:\s+(?=[A-Z\"“])|\s*$)|\n")
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBERS = {word: n for n, word in enumerate(_UNITS)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_MONTHS = ("january february march april may june july august september october november december").split()
_YEAR = re.compile(r"1\d{3}|20\d\d")
_DAY = re.compile(r"([0-3]?\d)(?:st|nd|rd|th)?")
_AROUND_DATES = {"on", "in", "of", "utc", "by", "around", "about", "circa", "since"}
# With one of these, a sentence that holds the reference need not say that it is the answer.
_UNDOES = re.compile(r"\b(?:not|no|never|neither|nor|or|and|unlike|except)\b|n't\b", re.IGNORECASE)


def exact_match(answer: str, reference: str) -> bool:
    """Equality after SQuAD's normalisation: case, punctuation, articles and white space don't count."""
    return normalise(answer) == normalise(reference) != ""


def normalise(text: str) -> str:
    """SQuAD's answer normalisation (Rajpurkar et al., arXiv 1606.05250, section 6.1), on NFKC text."""
    bare = unicodedata.normalize("NFKC", text).casefold().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def matches(answer: str, reference: str) -> bool:
    """Whether an answer gives the accepted one: in other words, or in a sentence that says nothing against it.

    A date may be given less exactly, down to its year ("2014" for "5 October 2014"), a person's name with other names
    between the first and the last.
    """
    if exact_match(answer, reference):
        return True
    said, wanted = words(answer), words(reference)
    if not said or not wanted:
        return False
    if "".join(said) == "".join(wanted) or _same_person(said, wanted):
        return True
    if (date := _date(wanted)) is not None and (given := _date(said)) is not None:
        return _is_less_exact(given, date)
    return _says(answer, wanted)


def words(text: str) -> list[str]:
    """Words without accents, articles and soft hyphens; numbers in figures."""
    plain = unicodedata.normalize("NFKD", text.replace("\xad", "")).casefold()
    plain = _THOUSANDS.sub("", "".join(c for c in plain if not unicodedata.combining(c)))
    found: list[str] = []
    for word in _WORDS.findall(_ARTICLES.sub(" ", plain)):
        number = _NUMBERS.get(word)
        if number is not None and number < 10 and found and found[-1] in {str(10 * n) for n in range(2, 10)}:
            found[-1] = str(int(found[-1]) + number)
        else:
            found.append(word if number is None else str(number))
    return found


Date = tuple[str | None, str | None, str | None]


def _date(found: list[str]) -> Date | None:
    """Year, month and day of words that are a date and nothing else; the year at least."""
    parts: dict[str, str] = {}
    for word in found:
        if word in _AROUND_DATES:
            continue
        day = _DAY.fullmatch(word)
        kind = "year" if _YEAR.fullmatch(word) else "month" if word in _MONTHS else "day" if day else None
        if kind is None or kind in parts:
            return None
        parts[kind] = day[1] if kind == "day" and day else word
    return (parts["year"], parts.get("month"), parts.get("day")) if "year" in parts else None


def _is_less_exact(said: Date, wanted: Date) -> bool:
    return all(mine in (None, theirs) for mine, theirs in zip(said, wanted, strict=True))


def _same_person(said: list[str], wanted: list[str]) -> bool:
    """Whether one is the other with further names or initials between the first and the last."""
    shorter, longer = sorted((said, wanted), key=len)
    return (
        len(shorter) == 2
        and 3 <= len(longer) <= 5
        and (longer[0], longer[-1]) == tuple(shorter)
        and all(name.isalpha() for name in longer)
    )


def _says(answer: str, wanted: list[str]) -> bool:
    """Whether the answer's first sentence holds the words in a row, and nothing that might take them back."""
    sentence = _SENTENCE_END.split(answer.strip(), maxsplit=1)[0]
    said = words(sentence)
    if _date(wanted):
        # Which of day, month and year comes first does not matter.
        held = set(wanted) - _AROUND_DATES <= set(said)
    else:
        held = any(said[start : start + len(wanted)] == wanted for start in range(len(said) - len(wanted) + 1))
    years = sum(bool(_YEAR.fullmatch(word)) for word in said)
    return held and years <= 1 and not _UNDOES.search(sentence)
