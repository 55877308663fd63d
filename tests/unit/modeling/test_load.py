import json
import re
import shutil

import pytest
import torch
from transformers import BloomConfig, JambaConfig, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from lrm_safety.errors import ConfigError, ModelError
from lrm_safety.modeling.configuration import check_causal_lm, load_tokenizer
from lrm_safety.modeling.folder import ahead, check_model_folder, is_hub_id
from lrm_safety.modeling.load import attention_implementation, check_sequence_parallel, freeze, load_causal_lm
from lrm_safety.rewards.rendering import load_reward_tokenizer
from lrm_safety.settings import ModelSettings


def settings_for(folder, **changes):
    return ModelSettings(name="tiny", path=str(folder), family="plain", dtype="float32", **changes)


def test_loads_with_the_dtype_that_was_asked_for(model_folder):
    check_model_folder(str(model_folder))
    model = load_causal_lm(settings_for(model_folder), "cpu")
    assert model.dtype == torch.float32 and model.config._attn_implementation == "packed_rows"
    original = Qwen3ForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    for one, other in zip(model.parameters(), original.parameters(), strict=True):
        assert torch.equal(one, other)
    half = load_causal_lm(ModelSettings(name="tiny", path=str(model_folder), family="plain"), "cpu")
    assert half.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in freeze(model).parameters()) and not model.training


def test_dropout_is_off_even_when_training(tmp_path, tiny_qwen):
    tiny_qwen(attention_dropout=0.5).save_pretrained(tmp_path)
    model = load_causal_lm(settings_for(tmp_path), "cpu").train()
    tokens = torch.arange(20)[None]
    assert torch.equal(model(tokens).logits, model(tokens).logits)


def test_tokenizer_keeps_its_chat_template(model_folder):
    assert load_tokenizer(settings_for(model_folder)).chat_template.endswith("<think>")


def test_absent_folder_and_files(model_folder, tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        check_model_folder(str(tmp_path / "absent"))
    with pytest.raises(ModelError, match="does not exist"):
        load_causal_lm(settings_for(tmp_path / "absent"), "cpu")
    (model_folder / "config.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(ModelError, match=r"config\.json: is absent"):
        check_model_folder(str(model_folder))


def test_absent_tokenizer(model_folder):
    (model_folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer files"):
        load_tokenizer(settings_for(model_folder))
    check_model_folder(str(model_folder), needs_tokenizer=False)


@pytest.mark.parametrize("keep", [0, 5, 200, -1, -4000])
def test_torn_weights(model_folder, keep):
    file = model_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match="torn"):
        check_model_folder(str(model_folder))
    with pytest.raises(ModelError, match="torn"):
        load_causal_lm(settings_for(model_folder), "cpu")


def test_file_that_is_not_safetensors(model_folder):
    (model_folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 12345\n")
    with pytest.raises(ModelError, match="torn or not safetensors"):
        check_model_folder(str(model_folder))


def test_pickle_weights_are_not_read(model_folder):
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no pickle is read"):
        check_model_folder(str(model_folder))


def test_sharded_folder_with_a_missing_shard(tmp_path, tiny_qwen, tiny_tokenizer):
    tiny_qwen().save_pretrained(tmp_path, max_shard_size="20KB")
    tiny_tokenizer.save_pretrained(tmp_path)
    check_model_folder(str(tmp_path))
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"lacks 1 weight file.*{shards[1].name}"):
        check_model_folder(str(tmp_path))


def test_checkpoint_of_another_role(tmp_path, tiny_qwen):
    """A reward model in the policy's place: no lm_head, a score head left over."""
    config = tiny_qwen().config
    Qwen3ForSequenceClassification(config).save_pretrained(tmp_path / "reward")
    tiny_qwen().config.save_pretrained(tmp_path / "reward")
    with pytest.raises(ModelError, match=r"does not fit.*missing keys.*lm_head\.weight"):
        load_causal_lm(settings_for(tmp_path / "reward"), "cpu")


def test_checkpoint_with_more_layers_than_its_config(model_folder):
    config = json.loads((model_folder / "config.json").read_text())
    config["num_hidden_layers"] = 1
    config["layer_types"] = config["layer_types"][:1]
    (model_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="unexpected keys"):
        load_causal_lm(settings_for(model_folder), "cpu")


def test_checkpoint_of_another_size(model_folder):
    config = json.loads((model_folder / "config.json").read_text())
    config["vocab_size"] = 98
    (model_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load_causal_lm(settings_for(model_folder), "cpu")


def test_recurrent_layers_are_not_packed(tmp_path, tiny_granite):
    tiny_granite().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"model\.packing=false"):
        load_causal_lm(settings_for(tmp_path), "cpu")
    load_causal_lm(settings_for(tmp_path, packing=False), "cpu")


def test_a_model_of_the_hub_that_is_not_here_names_what_brings_it(tmp_path):
    """As on a node without a network: nothing of the kind is in the cache of the test's process."""
    absent = ModelSettings(name="qwen3_1_7b", path="nobody/no-such-model-of-ours", family="qwen3")
    with pytest.raises(
        ModelError,
        match=r"^model.path=nobody/.*no folder /.*/nobody/no-such-model-of-ours, .*reach, `hf download nobody/",
    ):
        check_causal_lm(absent)  # `fetch qwen3_1_7b` brings another one
    assert "reach, `lrm-safety fetch qwen3_1_7b` or `hf download Qwen/Qwen3-1.7B`" in ahead(
        "Qwen/Qwen3-1.7B", "qwen3_1_7b"
    )
    with pytest.raises(ModelError, match=r"^mine: .*`hf download nobody/no-such-model-of-ours`"):
        load_reward_tokenizer(absent.path, None, "mine")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError) as told:
        check_causal_lm(settings_for(tmp_path))
    assert "fetch" not in str(told.value), "a folder is not fetched"


def test_hub_ids_are_not_mistaken_for_folders(model_folder, monkeypatch):
    assert is_hub_id("Qwen/Qwen3-8B") and is_hub_id("gpt2")
    assert not is_hub_id("/data/model") and not is_hub_id("./model") and not is_hub_id("a/b/c")
    check_model_folder("Qwen/Qwen3-8B")
    monkeypatch.chdir(model_folder.parent)
    shutil.rmtree(model_folder / "nothing", ignore_errors=True)
    assert not is_hub_id("model")


def test_attention_kernel_rule():
    assert attention_implementation("auto", "cpu") == "sdpa"
    assert attention_implementation("eager", "cuda") == "eager"


def test_every_loaded_model_leaves_attention_to_one_kernel(repository_root):
    """Whoever loads a model that computes says so; models_cache loads one to write it down again, a card shows the line."""
    loaders = {}
    for path in (repository_root / "lrm_safety").rglob("*.py"):
        text = path.read_text()
        if re.search(r"AutoModel\w+\.from_pretrained\(", text):
            loaders[path.stem] = "one_attention_kernel()" in text
    assert loaders == {"load": True, "classifier": True, "models_cache": False, "export": False}


def test_loading_switches_cudnn_attention_off(model_folder):
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_causal_lm(settings_for(model_folder), "cpu")
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def split_refusal(config, size):
    with pytest.raises(ConfigError) as refused:
        check_sequence_parallel(settings_for("folder"), config, size)
    return str(refused.value)


def test_rows_are_split_over_ranks_by_heads_that_come_out_even(tiny_qwen):
    """Four heads on two key-value heads: over two ranks and four, not over three or eight."""
    config = tiny_qwen().config
    for size in (1, 2, 4):
        check_sequence_parallel(settings_for("folder"), config, size)
    for size in (3, 8):
        assert split_refusal(config, size) == (
            f"trainer.sequence_parallel_size={size}: must divide the 4 attention heads of model.path=folder: 1, 2, 4"
        )


def test_layers_that_mix_tokens_otherwise_are_not_split_over_ranks(tiny_granite):
    """Mamba layers that the configuration lists, a state-space model whose configuration lists none, and attention of its own."""
    told = split_refusal(tiny_granite().config, 2)
    assert told.endswith("(granitemoehybrid: linear_attention) cannot be split over ranks; use 1")
    assert "(jamba: " in split_refusal(JambaConfig(num_attention_heads=4), 2)
    assert "(bloom: other attention or state)" in split_refusal(BloomConfig(n_head=4), 2)


def test_positions_that_depend_on_what_a_rank_reads_are_not_split(tiny_qwen):
    for kind in ("dynamic", "linear"):
        config = tiny_qwen(rope_parameters={"rope_type": kind, "factor": 2.0, "rope_theta": 1e4}).config
        if kind == "dynamic":
            assert "=folder rotates positions by the longest sequence in sight" in split_refusal(config, 2)
        else:
            check_sequence_parallel(settings_for("folder"), config, 2)
