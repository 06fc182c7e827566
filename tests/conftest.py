"""What every test shares: no network, few threads, and one tiny random model."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sys  # noqa: E402

import pytest  # noqa: E402 - the environment must be set before any package that reads it


@pytest.fixture(autouse=True)
def no_deepspeed_config():
    """transformers keeps the DeepSpeed config of any arguments that were made, even if refused."""
    yield
    if deepspeed := sys.modules.get("transformers.integrations.deepspeed"):
        deepspeed.unset_hf_deepspeed_config()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory):
    """A saved two-layer GPT-2 of random weights, byte-level tokenizer (257 ids, 128 positions)."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|endoftext|>": 0} | {letter: i + 1 for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(vocab),
            n_positions=128,
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    path = tmp_path_factory.mktemp("model") / "tiny-gpt2"
    model.save_pretrained(path)
    wrapped.save_pretrained(path)
    return path


@pytest.fixture
def convert_file(tmp_path, monkeypatch, capsys):
    """Write one raw file, convert it with all rows in train, and see everything that came of it."""
    import json
    from types import SimpleNamespace

    import pyarrow as pa

    from data_tools.convert import main

    monkeypatch.chdir(tmp_path)

    def jsonl(path):
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def run(content, *options, name="raw.jsonl"):
        """`content` is bytes, text, or a list of records that are written as JSON Lines."""
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        status = main([name, "-o", "out", "--test-size", "0", *options])
        printed = capsys.readouterr()
        out, rows = tmp_path / "out", []
        for split in ("train", "test"):
            for shard in sorted(out.glob(f"{split}/*.arrow")):
                rows += pa.ipc.open_stream(shard.read_bytes()).read_all().to_pylist()
        rejects = out / "rejects.jsonl" if status == 0 else tmp_path / "out.rejects.jsonl"
        report = out / "report.json" if status == 0 else tmp_path / "none"
        return SimpleNamespace(
            status=status,
            out=printed.out,
            err=printed.err,
            rows=rows,
            directory=out,
            rejects=jsonl(rejects) if rejects.exists() else [],
            report=json.loads(report.read_text("utf-8")) if report.exists() else None,
        )

    return run


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    """A function that trains for a few steps in tmp_path; see `training.runner`."""
    from training import runner

    return runner(tiny_model_dir, tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model_dir):
    """A finished LoRA run over 120 pairs, some of them held out: the path of its config."""
    from evaluating import write_config, write_pairs

    from dpo_wrap import train

    folder = tmp_path_factory.mktemp("eval")
    config = write_config(folder, tiny_model_dir, write_pairs(folder / "pairs.jsonl", 120))
    assert train.main([str(config)]) == 0
    return config
