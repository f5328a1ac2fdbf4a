"""English prose of word problems by rule: sentences, names, words that refer back. Approximate, frozen and tested."""

import re

_BREAK = re.compile(r"""(?<=[.?!])["'”’)]*(?P<space>\s+)(?=["'“‘($]?[A-Z0-9])""")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Mt|vs|lbs?|oz|ft|in|hr|hrs|min|mins|sec|No|approx|etc|[A-Z])\.$"
    r"|[ap]\.m\.$|[A-Z]\.[A-Z]\.$"
)
_WORD = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?")
_FORMULA = re.compile(r"\\|\$[^$\s](?:[^$]*[^$\s])?\$(?!\s?\.?\d)|\[asy\]")


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


PRONOUNS = _listed(
    "he she it they we you i him her them us me his hers its their theirs our your my himself herself itself "
    "themselves this that these those who whom whose which one ones"
)
"""Words that stand for something named before."""
CONNECTIVES = _listed(
    "then so but and or however also after afterward afterwards before next finally later meanwhile instead because "
    "therefore thus since while when until once still besides additionally unfortunately luckily eventually now yet "
    "otherwise similarly likewise another other others both neither half twice rest remaining same such here "
    "together despite additional halfway altogether thereafter subsequently"
)
"""Words that tie a sentence to the one before when they open it, as do `the rest` and the like."""
COMPARATORS = _listed(
    "not no never nor without more less than fewer least most fewest same equal except only other rest remaining "
    "left over under above below between before after much many again further additional extra total altogether "
    "combined together difference increase decrease increased decreased increases decreases increasing decreasing"
)
"""Negations, comparators and words of arithmetic: a typing error in one may change what is asked."""
_NO_NAMES = (
    _listed(
        "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
        "september october november december christmas easter halloween thanksgiving english french spanish german "
        "italian chinese american the a an i if how what when where who why there this that these those every each all "
        "some one two three four five six seven eight nine ten half on in at for after before since because today "
        "yesterday tomorrow mr mrs ms dr everyone everybody someone somebody nobody anyone people students kids "
        "children"
    )
    | PRONOUNS
    | CONNECTIVES
)
_PERSON_VERBS = _listed(
    "has had is was buys bought wants wanted needs needed makes made gets got sells sold eats ate takes took "
    "decides decided goes went works worked plans reads read runs ran earns earned spends spent gave gives bakes "
    "baked collects collected saves saved owns uses plays walks drives drove starts started loves likes finds found"
)
_PLACES_BEFORE = _listed("in at to from on of the near into toward towards through via for by")
_COMMON = _listed(
    "have does will would could should with from that this there their they what when where which about into than "
    "then them were been being each every many much more some other only also just very such total number left cost "
    "costs price make makes made take takes took gets have having over after before first last day days week weeks "
    "month year hour hours minute minutes time times"
)


def sentences(text: str) -> list[str]:
    """The sentences of `text`, each with the white space after it, so that joined they are the text again.

    Breaks after . ? or ! before a capital, a digit or a quotation mark, though not after an abbreviation.
    """
    parts, begin = [], 0
    for found in _BREAK.finditer(text):
        head = text[begin : found.start("space")].rstrip("\"'”’)")
        if _ABBREVIATION.search(head):
            continue
        parts.append(text[begin : found.end("space")])
        begin = found.end("space")
    return [*parts, text[begin:]] if text[begin:] else parts


def words(text: str) -> list[str]:
    """Words in lower case, in order."""
    return [found[0].lower() for found in _WORD.finditer(text)]


def has_formula(text: str) -> bool:
    """Whether there is LaTeX in it, in which letters and spaces mean something else."""
    return bool(_FORMULA.search(text))


def opens_with_reference(sentence: str) -> bool:
    """Whether its first word, or the one after `the`, refers to or is tied to the sentence before it."""
    first = re.match(r"""["'“‘(]*(?:the\s+)?([a-z]+)""", sentence, re.IGNORECASE)
    return first is not None and first[1].lower() in _TIES


_TIES = PRONOUNS | CONNECTIVES | {"first", "second", "third", "fourth", "last", "latter", "former"}


def leans_on_a_name(sentence: str) -> bool:
    """Whether it says he or she, him or her, before anybody is named in it."""
    for place, found in enumerate(re.finditer(r"[A-Za-z]+", sentence)):
        if found[0].lower() in _PERSONAL:
            return True
        if place and found[0][0].isupper() and found[0].lower() not in _NO_NAMES:
            return False
        if not place and found[0].lower() not in _NO_NAMES and person(sentence) == found[0]:
            return False
    return False


_PERSONAL = _listed("he she him her his hers himself herself")


def asks_about_everybody(question: str) -> bool:
    """Whether it is about all that were named, without naming them."""
    named = capitalised(question[1:]) - _NO_NAMES
    return bool(_EVERYBODY & set(words(question))) and not named


_EVERYBODY = _listed("they them their we us our everyone everybody all altogether together combined people")


def asks_for_something(sentence: str) -> bool:
    """Whether it holds a task or a condition, which a sentence that must not matter may not."""
    return bool(_ASKING & set(words(sentence)))


_ASKING = _listed("calculate find determine compute what how if suppose assume answer whether given let")


def has_pronoun(sentence: str) -> bool:
    """Whether any word stands for something that may be outside of it."""
    return bool(PRONOUNS & set(words(sentence)))


def tells_what_came_next(sentence: str) -> bool:
    """Whether any word of it needs an earlier sentence to be understood: an order of events, a rest, another one."""
    return bool(_SEQUENCE & set(words(sentence)))


_SEQUENCE = _listed(
    "then however afterward afterwards later next again also too another other others rest remaining remainder instead "
    "eventually finally still already anymore same such previous previously original originally former latter left"
)


def context_and_question(text: str) -> tuple[list[str], str] | None:
    """The sentences before the only question, and that question, if it comes last; else None."""
    parts = sentences(text)
    asking = [place for place, part in enumerate(parts) if part.rstrip().rstrip("\"'”’)").endswith("?")]
    if asking != [len(parts) - 1]:
        return None
    return parts[:-1], parts[-1]


def capitalised(text: str) -> frozenset[str]:
    """Every word with a capital letter, in lower case, without a possessive ending."""
    return frozenset(
        re.sub(r"['’]s?$", "", found[0]).lower() for found in _WORD.finditer(text) if found[0][0].isupper()
    )


def content_words(text: str) -> frozenset[str]:
    """Words of four letters or more that say what a text is about, roughly without their plural ending."""
    return frozenset(word.removesuffix("s") for word in words(text) if len(word) >= 4 and word not in _COMMON)


def person(text: str) -> str | None:
    """A name that is almost surely a person's: the first that stands before a verb of people; None where there is none.

    Parts of longer names and what follows `in`, `at` or `the` are not taken.
    """
    for sentence in sentences(text):
        found = list(re.finditer(r"[A-Za-z]+", sentence))
        for place, word in enumerate(found):
            name = word[0]
            if not name[0].isupper() or not name[1:].islower() or len(name) < 3 or name.lower() in _NO_NAMES:
                continue
            before = found[place - 1][0] if place else ""
            after = found[place + 1][0] if place + 1 < len(found) else ""
            longer = after[:1].isupper() or (before[:1].isupper() and before.lower() not in _NO_NAMES)
            if longer or before.lower() in _PLACES_BEFORE:
                continue
            gap = sentence[word.end() : found[place + 1].start()] if after else ""
            if gap == " " and after in _PERSON_VERBS:
                return name
    return None
