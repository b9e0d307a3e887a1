"""Does an answer decline to give one? English only.

An answer is cut into clauses. The first that says anything must be a disclaimer ("I don't know", "the text does not
say"), and none may be a guess after all ("... but I think it was Rome"). What stands in quotation marks is somebody
else's word. tests/training/abstentions.jsonl holds what the patterns were written against.
"""

import re
import unicodedata

_QUOTED = re.compile(r"[\"“„«][^\"”“»]*[\"”“»]")
_CONTRARY_WORD = r"(?:but|though|although|however|except)\b"
_CLAUSE_END = re.compile(
    rf"[.!?;:…(]+(?:\s+|$)|\s+\(|,?\s+(?={_CONTRARY_WORD})"
    r"|,\s+(?=(?:so|maybe|perhaps|probably|possibly|likely|it (?:might|may|could))\b)"
)
# What may stand before a disclaimer, or alone, without being an answer.
_FILLER = re.compile(
    r"(?:(?:well|sorry|unfortunately|regrettably|apologies|frankly|hmm+|oh|so|and|no(?=,)|but|to be honest"
    r"|honestly|i(?:'m| am) sorry|i apologi[sz]e|i(?:'m| am) afraid(?: that)?"
    r"|i (?:must|have to) (?:admit|confess)(?: that)?"
    r"|as an? (?:ai|language model|assistant)\b[^,]*|as of my (?:last|knowledge)[^,]*"
    r"|as far as i (?:know|can tell)|i (?:think|believe)(?: that)?"
    r"|(?:that's an? )?(?:good|great|interesting) question|let me think)\b[,\s]*)+"
)
_WHO = r"(?:i|we|scientists|historians|researchers|experts|people)"
_HOW = r"(?:(?:really|honestly|just|simply|actually|currently|entirely|quite|completely|absolutely|fully) )?"
_CANNOT = rf"{_WHO}(?:'m|'re| am| are| was| were)? {_HOW}(?:can ?not|can't|could not|couldn't|(?:un|not |n't )able to)"
_KNOWLEDGE = r"(?:[\w-]+ )?(?:information|knowledge|records?|data|answer|ability|idea|clue|recollection|memory)"
_TEXT = r"the (?:(?:given|provided) )?(?:text|passage|context|document|article|source)s?"
_OPENINGS = (
    rf"{_WHO} {_HOW}(?:do not|don't|dont|didn't) {_HOW}(?:(?:yet )?know|remember|recall|think i know)\b",
    rf"{_WHO} {_HOW}(?:do not|don't|dont) {_HOW}(?:have|possess) "
    rf"(?:access to|(?:(?:a|an|any|the|that|enough|this) )?{_KNOWLEDGE})\b",
    rf"{_WHO} don't want to (?:guess|make)\b",
    rf"{_CANNOT} {_HOW}(?:answer|say|tell|determine|know|find|verify|confirm|provide|recall|remember|help|give"
    r"|be (?:certain|sure))\b",
    r"i wasn't able to (?:answer|find|verify|confirm)\b",
    rf"{_WHO}(?:'m|'re| am| are) {_HOW}(?:un|not {_HOW})(?:sure|certain|aware|familiar)(?![\w-])",
    rf"{_WHO} (?:{_HOW}have no|haven't (?:a|any|the (?:faintest|slightest))|lack(?: the| sufficient| any)?) "
    rf"{_KNOWLEDGE}\b",
    r"i(?:'ve| have)? (?:forgot|forgotten|never heard of)\b",
    r"i(?:'d| would) (?:rather not|(?:only )?be guessing)\b|i (?:prefer not to|won't|will not) (?:answer|say|guess)\b",
    r"i(?:'m| am) drawing a blank|i wish i knew|your guess is as good as mine|beats me|not that i know of",
    r"any answer would be a guess|i have no comment\b",
    r"(?:nobody|no ?one) (?:really )?(?:knows|can (?:say|tell|know))"
    r"(?= (?:who|what|when|where|why|how|which|if|whether|for)\b|$)",
    r"[^,]{0,80}\b(?:(?:is|are|was|were)(?: currently| still)? (?:unknown|not known)|(?:is|was)n't known)(?: to me)?$",
    r"(?:it|this|that)(?:'s| is) (?:unknown|not known|unclear)\b|it isn't known\b",
    r"(?:(?:it|this|that)(?:'s| is) )?(?:impossible|hard|difficult) to (?:say|know|tell)\b",
    r"(?:it|this|that)(?:'s| is) not (?:something i know|mentioned|stated|specified|given)\b",
    r"(?:it|this|that)(?:'s| is) (?:beyond|outside) (?:my|what i)\b",
    r"(?:this|that|the) information (?:is not|isn't) (?:available|given|known)\b",
    r"my (?:knowledge|training data) (?:ends|does not|doesn't)\b",
    rf"there(?:'s| is) (?:no|not enough|insufficient) (?:{_KNOWLEDGE}|way (?:to|of) know)",
    rf"there isn't (?:enough|any) {_KNOWLEDGE}",
    r"(?:it|this|that|(?:this |the )?question) (?:can ?not|can't) be (?:determined|answered|known)\b",
    rf"{_TEXT} (?:does not|doesn't|do not) (?:say|mention|provide|contain|specify|state|include|give|answer)\b",
    rf"{_TEXT} gives no answer\b",
)
_ALONE = (
    r"no idea|no clue|unknown|not known|none known|not sure|unsure|uncertain|(?:can ?not|can't|couldn't) say|don't know"
    r"|(?:i )?dunno|idk|n/a|no (?:information|data|answer|comment)(?: available)?|insufficient information"
    r"|not enough information(?: to \w+(?: the question)?)?|can ?not be determined"
    r"|not (?:mentioned|stated|specified|given)(?: in the \w+)?"
)
_DISCLAIMER = re.compile(rf"(?:{'|'.join(_OPENINGS)}|(?:{_ALONE})(?:,? sorry)?$)")
_CONTRARY = re.compile(rf"{_CONTRARY_WORD}[,\s]*")
_GUESS = re.compile(
    r"(?:maybe|perhaps|probably|possibly|likely|most likely|presumably|i(?:'d| would) (?:say|guess|go with)"
    r"|i (?:think|believe|guess|suspect|assume)|my (?:best )?guess|it (?:might|may|could|seems)"
    r"|it(?:'s| is| was) (?!possible|impossible|not\b|un|beyond|outside)|if i had to|estimates?)\b"
)


def abstains(answer: str) -> bool:
    """Whether an answer declines to give one. A guess after the disclaimer is an answer; silence is not abstaining."""
    text = unicodedata.normalize("NFKC", answer).casefold().replace("’", "'")
    text = " ".join(_QUOTED.sub(" X ", text).split())
    declined = False
    for clause in filter(None, map(str.strip, _CLAUSE_END.split(text))):
        contrary = _CONTRARY.match(clause)
        said = clause[contrary.end() :] if contrary else clause
        filler = _FILLER.match(said)
        core = said[filler.end() :] if filler else said
        if _DISCLAIMER.match(said) or _DISCLAIMER.match(core):
            declined = True
        elif core and (not declined or contrary or _GUESS.match(said)):
            return False
    return declined
