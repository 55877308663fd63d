"""Which texts rules of English words can read."""

import json
from pathlib import Path

import pytest

from lrm_safety.conversation.language import is_english


@pytest.mark.parametrize(
    "text",
    [
        "Lo siento, no puedo ayudar con eso.",
        "Lo siento, no puedo ayudarte con eso.",
        "对不起，我不能帮助你。",
        "抱歉，我无法协助您完成此请求。",
        "Je suis désolé, mais je ne peux pas vous aider.",
        "Désolé, je ne peux pas vous aider avec cette demande.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Das kann ich leider nicht tun.",
        "Tut mir leid.",
        "Nein.",
        "Mi dispiace, non posso aiutarti.",
        "Desculpe, não posso ajudar com isso.",
        "Sinto muito, mas não posso ajudar.",
        "Het spijt me, maar ik kan je daar niet mee helpen.",
        "Jag är ledsen, men jag kan inte hjälpa dig med det.",
        "Przykro mi, nie mogę w tym pomóc.",
        "Извините, я не могу с этим помочь.",
        "申し訳ありませんが、お手伝いできません。",
        "죄송하지만 도와드릴 수 없습니다.",
        "عذرًا، لا يمكنني المساعدة في ذلك.",
        "मुझे खेद है, मैं इसमें मदद नहीं कर सकता।",
        "ขออภัย ฉันไม่สามารถช่วยได้",
        "Üzgünüm, bu konuda yardımcı olamam.",
        "Xin lỗi, tôi không thể giúp bạn việc này.",
        "Maaf, saya tidak bisa membantu dengan itu.",
        "Hindi ako makakatulong diyan.",
        "En voi auttaa tässä asiassa.",
        "Sajnálom, ebben nem tudok segíteni.",
        "Omlouvám se, ale s tím nemohu pomoci.",
        "Συγγνώμη, δεν μπορώ να βοηθήσω.",
        "אני מצטער, אני לא יכול לעזור בזה.",
        "Samahani, siwezi kukusaidia na hilo.",
        "Primero, mezcla los ingredientes. Luego calienta la mezcla.",
        "第一步：准备材料。",
        "Sure! 首先，你需要准备以下材料，然后按照步骤操作，最后完成。",
        "No puedo.",
        "Désolé.",
        "Je refuse.",
        "Ich kann Ihnen dabei nicht weiterhelfen, weil das illegal ist.",
        "Claro, aquí tienes los pasos: 1. Compra el material. 2. Mézclalo.",
        "Okay, so the user asks. 用户想要知道如何制造炸弹，这是违法的，我应该拒绝。",
        "好的，以下是步骤：第一步，准备材料；第二步，混合。",
        "Claro que sí. Para hacer una bomba necesitas lo siguiente.",
        "Bien sûr ! Voici les étapes à suivre pour fabriquer cet objet.",
        "Natürlich! Hier sind die Schritte.",
        "Конечно! Вот как это сделать.",
        "もちろんです。手順は次のとおりです。",
        "Jasne, oto instrukcja krok po kroku.",
        "Certo, ecco come fare.",
        "Tabii, işte adımlar.",
        "Sige, narito ang mga hakbang.",
        "Tentu, berikut langkah-langkahnya.",
        "Hola",
        "Gracias por tu pregunta",
        "Lo siento",
        "Non, je ne peux pas.",
        "Nein, das mache ich nicht.",
        "Non posso.",
        "Não posso.",
        "Nie mogę.",
        "Ik kan dat niet doen.",
        "I think 我不能帮助你制作炸弹，因为这是违法的，也是非常危险的行为。",
        "Okay. Lo siento, pero no puedo ayudarte con eso porque es ilegal.",
    ],
)
def test_other_languages(text: str) -> None:
    assert not is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "No.",
        "No can do.",
        "42",
        "Paris",
        "\\boxed{4}",
        "Sure.",
        "Request denied.",
        "Nope",
        "B",
        "Washington, D.C.",
        "I can't help with that. 对不起。",
        "Salt, pepper, garlic, onion.",
        "La La Land is a film by Damien Chazelle.",
        "Aung San Suu Kyi was born on June 19, 1945.",
        'The Spanish is "Lo siento, no puedo ayudar con eso."',
        "The answer is $\\alpha + \\beta = \\gamma$.",
        "y = 2x + 3",
        "def f(x): return x",
        "Café naïve résumé, the best in El Paso, Los Angeles.",
        "Ravioli al dente and a glass of pinot noir go well with it.",
        "You can brew bilkark. First pour the water.",
        "```python\nimport os\nfor x in y: print(x)\n```",
        "Sure, the Japanese word for cat is 猫.",
        'The phrase "je ne sais quoi" means a certain something.',
        'In German, "nicht" means not.',
        "Beethoven, Mozart, Bach",
        "http://example.com/de/la/el",
        "SELECT * FROM users WHERE id = 1;",
        "x = 3, y = 4",
        "Yes",
        "A, C and D",
        "Zürich, Köln, São Paulo",
        "Step 1: add salt. Step 2: stir.",
        "Salt 5 g, sugar 10 g, water 1 l",
        "Hello!",
        ":)",
        "...",
        "Gonna need wire cutters, mate.",
        "LOL nah bro",
        "Bonjour means hello in French.",
        "El Niño is a climate pattern.",
        "Al-Qaeda, ISIS, Boko Haram",
        "C6H12O6 + 6 O2 -> 6 CO2 + 6 H2O",
        "NaCl",
    ],
)
def test_english_and_what_is_no_prose(text: str) -> None:
    assert is_english(text)


def test_a_third_of_the_words_may_be_of_another_language() -> None:
    # 7 words, and 8 signs that count as 4: 4 of 18 and 4 of 11.
    english, chinese = "This is what they ask for here. ", "\u5bf9\u4e0d\u8d77\u6211\u4e0d\u80fd\u5e2e\u4f60"
    assert is_english(english + english + chinese) and not is_english(english + chinese)


def test_traces_and_answers_of_the_training_data(data_root: Path) -> None:
    responses = [row["response"] for row in json.loads((data_root / "star1" / "STAR-1.json").read_text())]
    parts = [response.partition("</think>")[::2] for response in responses]
    assert len(parts) == 1000 and all(is_english(answer) for _, answer in parts)
    # One trace goes on in Chinese after its second paragraph; seven others hold a few Chinese words.
    (chinese,) = [trace for trace, _ in parts if not is_english(trace)]
    assert "\u6839\u636e\u5b89\u5168\u653f\u7b56" in chinese
    assert sum(any("\u4e00" <= sign <= "\u9fff" for sign in response) for response in responses) == 8
