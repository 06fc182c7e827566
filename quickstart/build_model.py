"""Build the quickstart's base model: a small GPT-2 that writes the reviews of quickstart.grammar.

    python -m quickstart.build_model checkpoints/quickstart/model

It is what a base model is to a real run: it knows the language and has no opinion. A byte-level
tokenizer is trained on sampled reviews and the model on the same by plain next-token prediction,
on the CPU, in fp32, deterministically: one seed and one machine give the same bytes. A directory
that holds this very build already is left as it is.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random

from quickstart import grammar

END = "<|endoftext|>"
STAMP = "build.json"
CONTEXT = 1024  # tokens; far more than a review needs, so that real dialogues fit too
PROBES = 512  # sampled reviews that the closing figures are taken from


@dataclass(frozen=True)
class Settings:
    """The settings of the model and its training; every field is part of the stamp."""

    seed: int = 0
    steps: int = 1600
    batch_size: int = 32  # reviews
    learning_rate: float = 1e-2  # its peak; warmed up over a tenth of the steps, then a cosine to 0
    vocabulary: int = 1152  # token ids at most, the 256 bytes and the end of text among them
    width: int = 96
    layers: int = 2
    heads: int = 4


def stamp_of(settings: Settings) -> dict:
    """What a build depends on: the settings, the sources and the packages that do the work."""
    sources = (Path(__file__), Path(grammar.__file__))
    return {
        "settings": asdict(settings),
        "sources": [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources],
        "packages": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }


def stamp_in(folder: Path) -> dict | None:
    """The stamp of the build in `folder`; None where there is none."""
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))["stamp"]
    except (OSError, ValueError, KeyError):
        return None


def train_tokenizer(texts: list[str], vocabulary: int):
    """A byte-level BPE tokenizer, which any text passes through unchanged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer, settings: Settings):
    """A GPT-2 of random weights, without dropout: its texts never repeat, so it cannot overfit."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=CONTEXT,
            n_embd=settings.width,
            n_layer=settings.layers,
            n_head=settings.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pretrain(model, tokenizer, texts: list[str], settings: Settings) -> float:
    """Next-token prediction over `texts`, each seen once; the mean loss of the last 20 steps."""
    import torch
    from tqdm.auto import tqdm
    from transformers import get_cosine_schedule_with_warmup

    # No weight decay: it flattens the logits, and a flat tail is what breaks sampled reviews.
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, settings.steps // 10, settings.steps)
    losses = []
    model.train()
    bar = tqdm(range(settings.steps), desc="pre-training", unit="step", disable=None)
    for step in bar:
        first = step * settings.batch_size
        batch = tokenizer(
            [text + END for text in texts[first : first + settings.batch_size]],
            padding=True,
            return_tensors="pt",
        )
        # The end-of-text token doubles as padding, so labels are masked by position, not by id.
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    model.eval()
    tail = losses[-20:]
    return sum(tail) / len(tail)


def write_reviews(model, tokenizer, prompts: list[str]) -> list[str]:
    """The prompts with sampled continuations (temperature 1, full distribution)."""
    import torch

    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    tokenizer.padding_side = "right"
    with torch.no_grad():
        written = model.generate(
            **batch, do_sample=True, top_k=0, max_new_tokens=64, pad_token_id=tokenizer.pad_token_id
        )
    return tokenizer.batch_decode(written, skip_special_tokens=True)


@contextmanager
def one_thread():
    """Limit torch to one thread, so that sums do not depend on the number of cores.

    With tensors this small, a second thread is a third faster, but ten times slower under load.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def build(settings: Settings, folder: Path) -> dict[str, float]:
    """Train tokenizer and model and save both in `folder`; return the closing figures."""
    import torch

    rng = Random(settings.seed)
    torch.manual_seed(settings.seed)
    texts = [grammar.sample_text(rng) for _ in range(settings.steps * settings.batch_size)]
    tokenizer = train_tokenizer(texts[:5000], settings.vocabulary)
    model = new_model(tokenizer, settings)
    loss = pretrain(model, tokenizer, texts, settings)
    prompts = [grammar.sample_prompt(rng) for _ in range(PROBES)]
    reviews = write_reviews(model, tokenizer, prompts)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "parameters": model.num_parameters(),
        "loss": loss,
        "well_formed": sum(map(grammar.is_well_formed, reviews)) / PROBES,
        "true_reward": sum(map(grammar.true_reward, reviews)) / PROBES,
    }


def is_running(process: int) -> bool:
    """Whether a process of this id is alive."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove_leftovers(out: Path) -> None:
    """Delete the partial folders of killed builds of `out`."""
    for folder in out.parent.glob(f"{out.name}.part-*"):
        process = folder.name.rpartition("-")[2]
        if process.isdecimal() and not is_running(int(process)):
            shutil.rmtree(folder)


def put_in_place(part: Path, out: Path) -> None:
    """Rename a complete build to `out`, after moving an older build away."""
    if out.exists():
        older = out.with_name(f"{out.name}.part-old-{os.getpid()}")
        out.rename(older)
        part.rename(out)
        shutil.rmtree(older)
    else:
        part.rename(out)


def main(argv: list[str] | None = None) -> int:
    """Build the model; exit status 0, 1 when it cannot be written, 2 when OUT_DIR is not ours."""
    parser = argparse.ArgumentParser(
        prog="python -m quickstart.build_model",
        description="Build the quickstart's base model: a small GPT-2 that writes reviews.",
    )
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="where the model goes")
    parser.add_argument(
        "--steps",
        type=int,
        default=Settings.steps,
        metavar="N",
        help="training steps (default: %(default)s); fewer give a quicker and a poorer model",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=Settings.seed,
        metavar="N",
        help="of the texts and the weights (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, not {options.steps}")
    settings = Settings(seed=options.seed, steps=options.steps)
    out, stamp = options.out, stamp_of(settings)

    if out.exists() and stamp_in(out) is None:
        print(f"{out}: exists and is no model of this script; name another place", file=sys.stderr)
        return 2
    if stamp_in(out) == stamp:
        print(f"{out}: this very model is there already")
        return 0
    part = out.with_name(f"{out.name}.part-{os.getpid()}")
    try:
        part.mkdir(parents=True)
        remove_leftovers(out)
        figures = build(settings, part)
        (part / STAMP).write_text(
            json.dumps({"stamp": stamp, "figures": figures}, indent=2) + "\n", encoding="utf-8"
        )
        put_in_place(part, out)
    except OSError as error:
        print(f"{out}: cannot be written: {error.strerror or error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(
        f"{out}: {figures['parameters']:,} parameters, loss {figures['loss']:.3f}; of {PROBES} "
        f"sampled reviews {figures['well_formed']:.1%} well formed, "
        f"mean true reward {figures['true_reward']:+.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
