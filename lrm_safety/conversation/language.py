"""Whether a text is English, for rules made of English words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

MOST_FOREIGN = 1 / 3
"""A text is read when at most this share of its words stands in sentences of other languages."""
FEW_WORDS = 6
"""A text of so many words without a known one of any language is not taken for English."""
REMEMBERED_WORDS = 1 << 14
"""Of which it is remembered what they are: a run reads every response, and in them the same few words again and again."""
LONGEST_REMEMBERED = 32

_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.{0,1000}?\$\$|\$[^$\n]*\$|\\\[.{0,1000}?\\\]|\\\(.{0,1000}?\\\)|https?://\S+|\\[a-zA-Z]+",
    re.DOTALL,
)
_SIGNS_OF_CODE = re.compile(r"\w\(|[{}=<>_\\]|--")
_SENTENCE_END = re.compile(r"[.!?\u3002\n]+")  # other stops of other scripts are these, or commas, under NFKC
_CLAUSE_END = re.compile(r"[:;,\u3001\u061f\u060c]+")
_QUOTED = re.compile(r'["\u201c\u201d\u00ab\u201e][^"\u201c\u201d\u00bb\n]*["\u201c\u201d\u00bb]')
_WORD = re.compile(r"\w+(?:'\w+)*")
_LATIN_WORD = re.compile(r"[a-z\u00aa\u00ba\u00df-\u024f\u1e00-\u1eff']+")
# Scripts that write no blanks between words: two signs count as a word. Thai, Lao, Burmese, Khmer, kana, Han, hangul.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]"
)


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_ENGLISH = _words(
    "the of and to that it is are be been being were for with you your yours this these those i i'm i'll i've i'd it's",
    "that's don't doesn't didn't can can't cannot won't wouldn't couldn't shouldn't isn't aren't wasn't not will would",
    "could should must may might have has did does done from by but if at they them their there here who whom whose which",
    "what when where why how than then into about because before after out up down over under only also very more most",
    "some any each every other another such own same both few many much she her him his its our my mine myself yourself",
    "itself themselves he's she's you're they're we're you'll we'll they'll let's there's here's what's yes sure sorry",
    "please thank thanks okay ok hello hi never always however instead therefore though although while until since during",
    "without within between through against unless whether help use make take give get go know see need want think say",
    "tell ask try keep put find work step first second next last new good way people time one two three let like just",
    "still even well back things something anything nothing someone anyone everyone cant dont wont im ive didnt doesnt",
    "isnt assist unable comply able provide understand appropriate harmful illegal dangerous unethical wrong",
)
_SHARED = _words("a an as am do he in me no on or so us was we")
"""English words that other languages have too: they speak for English where nothing speaks for another."""
_OTHERS = (
    _words(
        # Spanish, Portuguese, Catalan
        "de la el los las una unas unos del que en por para se su sus lo le les es está están estoy ser puedo puede",
        "pueden podemos como más pero sí mi tu esto esta este eso esa ese ayudar ayudarte siento gracias usted yo hay muy",
        "ya también hola claro porque cuando disculpa disculpe perdón instrucciones hacer tengo debo nada uma não com mais mas seu",
        "sua você posso pode desculpe desculpa ajudar isso esse essa estou são na nos nas da dos das ao foi muito fazer",
        "sinto lamento amb però els ho puc ajudar aquesta això",
        # French
        "une des du et dans pas sur aux avec ce cette ces est sont je il elle nous vous ils elles où peux peut suis être",
        "avoir fait votre vos mes ses leur leurs désolé désolée desole aider cela ça qui mais aussi très faire moi toi",
        "voici étape oui non merci",
        # German, Dutch
        "der das und ist nicht ich sie ein eine einen einem einer eines zu zur zum mit für auf dem von auch kann können",
        "leider wir ihr ihnen ihre dir dich mir mich aber oder wenn wie nur noch nach bei aus sich wird werden haben habe",
        "sind kein keine keinen diese dieser dieses tut leid helfen dabei nein danke entschuldigung natürlich darf möchte",
        "het een ik niet voor op zijn dat deze dit maar ook kun kunnen helpen wij naar heb geen te aan bij nee ja spijt",
        "wat kan",
        # Italian, Romanian, Latin
        "gli di che sono è della delle dei nella nel alla questo questa può dispiace aiutarti aiutare più ma anche hai ti",
        "scusa grazie certo ecco fare nu și să pe ajuta îmi rău acest pentru possum sed quod",
        # Swedish, Danish, Norwegian, Icelandic
        "och jag inte det att ett som på är med av för ikke jeg er og hjelpe hjælpe hjälpa tyvärr beklager desværre",
        "dessverre nej nei ég ekki því að",
        # Polish, Czech, Slovak, Croatian, Slovene
        "nie się jest że przykro mogę pomóc tym tego jak czy dla od nemohu nemůžu pomoci omlouvám tím není jsem nemôžem",
        "žao mogu pomoći ali nisam ni žal lahko",
        # Turkish, Hungarian, Finnish, Estonian, Lithuanian, Latvian
        "bir ve bu için ile değil üzgünüm yardım edemem olarak çok ama nem tudok segíteni sajnálom és egy hogy az ez voi",
        "auttaa olen ei että pahoittelen saa aidata kahjuks negaliu padėti nevaru palīdzēt atsiprašau",
        # Vietnamese, Indonesian, Malay, Tagalog, Swahili, Afrikaans, Hausa
        "tôi không thể xin lỗi bạn là và của cho với này được một trong giúp saya tidak bisa dapat maaf membantu yang dan",
        "untuk dengan ini itu anda dari pada boleh tentu berikut hindi narito ako ang ng mga makakatulong pasensya paumanhin",
        "po siwezi samahani kukusaidia kwa hii ek om jou ba zan iya taimaka maka hakuna",
    )
    - _ENGLISH
    - _SHARED
)
# How English words end; only asked where no word of a sentence is known.
_ENGLISH_END = re.compile(r"(?:ing|ed|tion|tions|ly|ness|ments?|able|ible|ful|less|ous|ers?|ies|sh|ght|ck|wn|th)$")
# Letters that English borrows with hardly any word.
_FOREIGN_LETTER = re.compile(
    r"[\u00e3\u00e5\u00e6\u00f0\u00f1\u00f5\u00f8\u00fe\u00df\u0101-\u0151\u0155-\u024f\u1e00-\u1eff]"
)
_ELISION = re.compile(r"(?:l|d|j|n|s|c|m|t|qu|dell|nell|all|un)'(?=[aeiouyhàâéèêëîïôûü])")


def is_english(text: str) -> bool:
    """Whether rules about English words can read `text`.

    Most of its words stand in sentences that are English, by their commonest words and by their letters. Code, formulas
    and addresses are no language, what is quoted counts only where nothing else is there, and a text without a sentence
    (a number, a name) is read as it stands.
    """
    plain = _CODE.sub(" ", unicodedata.normalize("NFKC", text)).replace("\u2019", "'")
    unquoted = _QUOTED.sub(" ", plain)
    english = foreign = unknown = 0
    for sentence in _SENTENCE_END.split(unquoted if _WORD.search(unquoted) else plain):
        for place, clause in enumerate(_CLAUSE_END.split(sentence)):
            if _SIGNS_OF_CODE.search(clause):
                continue
            as_written = _WORD.findall(clause)
            words = [word.lower() for word in as_written]
            latin = [word for word in words if _is_latin(word)]
            known = len([word for word in latin if word in _ENGLISH])
            # A capital inside a sentence begins a name, and names say nothing of the language.
            marks = sum(
                len(word) > 1 and _is_foreign(word)
                for position, (word, written) in enumerate(zip(words, as_written, strict=True))
                if written == word or not (place or position)
            )
            if len(latin) < len(words):  # Latin words are none of another script
                foreign += sum(map(_num_foreign, words))
            if marks > known:
                foreign += len(latin)
            elif known or any(word in _SHARED for word in latin):
                english += len(latin)
            elif not any(map(_ENGLISH_END.search, latin)):
                unknown += sum(len(word) > 1 for word in latin)
    if not english and not foreign:
        return unknown < FEW_WORDS
    return foreign <= MOST_FOREIGN * (english + foreign)


def _remembered(judge: Callable[[str], bool]) -> Callable[[str], bool]:
    """The same judge, with a memory of words. What is longer than a word (unspaced scripts, base64) would only fill it."""
    remembers = lru_cache(maxsize=REMEMBERED_WORDS)(judge)
    return lambda word: remembers(word) if len(word) <= LONGEST_REMEMBERED else judge(word)


@_remembered
def _is_latin(word: str) -> bool:
    return _LATIN_WORD.fullmatch(word) is not None


@_remembered
def _is_foreign(word: str) -> bool:
    """Whether a word in Latin letters is a common one of another language, or is written as no English one."""
    return word in _OTHERS or bool(_ELISION.match(word)) or bool(_is_latin(word) and _FOREIGN_LETTER.search(word))


def _num_foreign(word: str) -> int:
    """How many words of other scripts a run of letters is; a single letter is a sign (a Greek variable)."""
    if word.isascii() or _is_latin(word):
        return 0
    if unspaced := len(_UNSPACED.findall(word)):
        return (unspaced + 1) // 2
    return int(sum(letter.isalpha() and not _LATIN_WORD.match(letter) for letter in word) > 1)
