from lrm_safety.conversation.response import reflection_token_ids


def test_only_single_token_forms_count(tokenizer_of):
    tokenizer = tokenizer_of("qwen3")
    ids = reflection_token_ids(tokenizer)
    texts = {tokenizer.decode([token]) for token in ids}
    assert texts, "the fixture's vocabulary holds no reflection word"
    assert texts <= {form for word in ("wait", "Wait", "but", "But", "Alternatively") for form in (word, f" {word}")}
    for word in ("wait", "Wait", "but", "But", "Alternatively"):
        for form in (word, f" {word}"):
            encoded = tokenizer.encode(form, add_special_tokens=False)
            assert (len(encoded) == 1) == (form in texts)


def test_words_of_several_tokens_leave_the_set_empty(tokenizer_of):
    assert reflection_token_ids(tokenizer_of("qwen3"), ["zyx", "qwerty"]) == frozenset()
