"""Shared prompts under TRL's own loss: every loss, figure and gradient is that of the padded batch.

TRL's side is a `DPOTrainer` as it stands; the same trainer's models then share prompts.
"""

import contextlib
import inspect

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sharing_models import WORDS, padded, pairs, tiny
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from dpo_wrap.loss import LOSSES, READS_LABEL_SMOOTHING
from dpo_wrap.prefix_sharing.forward import PER_TOKEN, READ, share

BATCH = padded(pairs(1, count=4))
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def build(tiny_model_dir, tmp_path_factory):
    """A function (tuning, loss_type, **options of DPOConfig) -> a trainer off its reference."""
    from datasets import Dataset

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    rows = Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})
    out, built = tmp_path_factory.mktemp("parity"), {}

    def trainer_of(tuning, loss_type="sigmoid", shape="gpt2", **options):
        key = (tuning, str(loss_type), shape, *sorted(map(str, options.items())))
        if key in built:
            return built[key]
        model, reference = tiny(shape, vocab_size=300), None
        del model.forward  # the trainer gives it a fused head of its own
        lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        if tuning == "full":
            reference = tiny(shape, seed=1, vocab_size=300)
            del reference.forward
        elif tuning == "adapter copy":
            model = get_peft_model(model, lora)
        smoothing = 0.2 if loss_type in [*READS_LABEL_SMOOTHING] else 0.0
        settings = {
            "output_dir": str(out),
            "loss_type": loss_type,
            "label_smoothing": smoothing,
            "beta": 0.5,
            "bf16": False,
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            "gradient_checkpointing": False,
        }
        trainer = DPOTrainer(
            model=model,
            ref_model=reference,
            args=DPOConfig(**settings | options),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=lora if tuning == "lora" else None,
        )
        if tuning == "adapter copy":
            with torch.no_grad():
                for name, parameter in trainer.model.named_parameters():
                    if ".default." in name:
                        parameter.add_(0.05 * torch.randn_like(parameter))
        trainer.model.train()
        built[key] = trainer
        return trainer

    return trainer_of


def models(trainer):
    policy = trainer.model
    yield policy.get_base_model() if isinstance(policy, PeftModel) else policy
    if trainer.ref_model is not None:
        yield trainer.ref_model


@contextlib.contextmanager
def sharing(trainer):
    shared = [share(model) for model in models(trainer)]
    try:
        yield
        assert all(one.calls for one in shared)
    finally:
        for one in shared:
            one.undo()


def figures(trainer, batch=BATCH):
    """The loss, all that TRL logs of it, and the gradient of every trained parameter."""
    mode = "train" if trainer.model.training else "eval"
    trainer._metrics[mode].clear()
    trainer._total_train_tokens = 0
    trainer.model.zero_grad(set_to_none=True)
    with contextlib.nullcontext() if trainer.model.training else torch.no_grad():
        loss = trainer.compute_loss(trainer.model, dict(batch))
    if trainer.model.training:
        loss.backward()
    gradients = {
        name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None
    }
    logged = {name: values[-1] for name, values in trainer._metrics[mode].items()}
    return loss.item(), logged, gradients


def assert_same(plain, shared):
    assert shared[0] == pytest.approx(plain[0], rel=TOLERANCE, abs=TOLERANCE)
    assert shared[1].keys() == plain[1].keys() and len(plain[1]) == 11
    for name, value in plain[1].items():
        assert shared[1][name] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), name
    assert shared[2].keys() == plain[2].keys()
    largest = max((g.abs().max().item() for g in plain[2].values()), default=0)
    for name, gradient in plain[2].items():
        scale = max(gradient.abs().max().item(), 1e-3 * largest)
        assert (gradient - shared[2][name]).abs().max().item() <= 2 * TOLERANCE * scale, name


def compared(trainer, batch=BATCH):
    plain = figures(trainer, batch)
    with sharing(trainer):
        shared = figures(trainer, batch)
    assert_same(plain, shared)
    return plain


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_every_loss_is_the_same(build, tuning, loss_type):
    loss, logged, gradients = compared(build(tuning, loss_type))
    assert gradients and logged["rewards/margins"] != 0


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.8, 1.0]},
        {"use_weighting": True},
        {"ld_alpha": 0.5},
        {"f_divergence_type": "js_divergence"},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_a_loss_may_read_besides_is_the_same(build, tuning, options):
    compared(build(tuning, **options))


@pytest.mark.parametrize(
    "shape", ["llama", "qwen2", "mistral", "mistral with a window", "gemma", "gemma 2", "gemma 3"]
)
@pytest.mark.parametrize("tuning", ["lora", "full", "adapter copy"])
def test_every_shape_and_reference_is_the_same(build, tuning, shape):
    compared(build(tuning, shape=shape))


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_an_evaluation_is_the_same(build, tuning):
    trainer = build(tuning)
    trainer.model.eval()
    try:
        loss, logged, gradients = compared(trainer)
    finally:
        trainer.model.train()
    assert not gradients


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_reference_computed_beforehand_is_the_same(build, tuning, monkeypatch):
    trainer = build(tuning)
    scorer = trainer.ref_model or trainer.model
    plain = trainer.compute_ref_log_probs(scorer, BATCH)
    with sharing(trainer):
        figures(trainer)  # the policy's model is asked too
        shared = trainer.compute_ref_log_probs(scorer, BATCH)
    torch.testing.assert_close(shared, plain, rtol=TOLERANCE, atol=TOLERANCE)
    monkeypatch.setattr(trainer, "precompute_ref_logps", True)
    names = ("ref_chosen_logps", "ref_rejected_logps")
    ask = trainer.model
    before = figures(trainer, BATCH | dict(zip(names, plain, strict=True)))
    shared_model = share(next(models(trainer)))
    after = figures(trainer, BATCH | dict(zip(names, shared, strict=True)))
    shared_model.undo()
    assert trainer.model is ask
    assert_same(before, after)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("options", [{}, {"max_length": 14, "truncation_mode": "keep_end"}])
def test_random_batches_are_the_same(build, seed, options):
    compared(build("lora"), padded(pairs(seed, count=1 + seed), **options))


def test_under_lora_dropout_a_prompt_token_is_dropped_once_for_both_answers(build):
    """The figures then differ from TRL's as two draws do; in mean they are the same."""
    trainer = build("lora")
    layers = [m for m in trainer.model.modules() if hasattr(m, "lora_dropout")]
    assert layers
    for layer in layers:
        layer.lora_dropout["default"] = torch.nn.Dropout(0.3)
    try:
        torch.manual_seed(0)
        with sharing(trainer):
            drawn = [figures(trainer)[1]["logps/chosen"] for _ in range(60)]
        plain = [figures(trainer)[1]["logps/chosen"] for _ in range(60)]
    finally:
        for layer in layers:
            layer.lora_dropout["default"] = torch.nn.Identity()
    means = [torch.tensor(values).mean().item() for values in (drawn, plain)]
    spread = torch.tensor(plain).std().item() / 60**0.5
    assert torch.tensor(drawn).std() > 0
    assert abs(means[0] - means[1]) < 4 * 2**0.5 * spread


def test_trl_asks_with_what_is_read_here_and_gets_what_is_laid_out_here(build, monkeypatch):
    """Fails by name where TRL changes: its question, its answer, or who answers."""
    assert list(inspect.signature(add_fused_lm_head).parameters) == [
        *("model", "temperature", "cast_lm_head_to_fp32", "outputs"),
    ]
    fields = set(FusedCausalLMOutput.__dataclass_fields__)
    assert fields == {*PER_TOKEN, "loss", "aux_loss"}
    trainer, asked = build("full"), []
    model = trainer.model
    plain = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: asked.append(given) or plain(**given))
    figures(trainer)
    assert {name for given in asked for name in given} == READ
    assert BATCH["input_ids"].max() < WORDS


def test_only_shift_labels_and_the_backbones_state_reach_trls_head(build):
    """What `share` rests on: the head scores the last hidden state, by labels that are shifted."""
    model = next(models(build("full")))
    states, labels = torch.randn(1, 7, 32), torch.randint(3, WORDS, (1, 7))

    def replaced(module, args, output):
        output.last_hidden_state = states
        return output

    hook = model.base_model.register_forward_hook(replaced)
    try:
        ids = torch.tensor([[5, 6, 7]])
        found = model(input_ids=ids, shift_labels=labels, fused_lm_head=True)
    finally:
        hook.remove()
    logits = model.get_output_embeddings()(states)
    expected = logits.log_softmax(-1).gather(2, labels[..., None])[..., 0]
    torch.testing.assert_close(found.log_probs, expected, rtol=1e-5, atol=1e-5)
