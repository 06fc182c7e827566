"""Prefix sharing: compute the prompt that the two answers of a pair share once, not twice.

TRL's DPO batch has two padded rows per pair, prompt + chosen answer and prompt + rejected answer,
so the policy and the reference compute every prompt twice. Here they run over one row that holds
each distinct token of the batch once, without padding:

    layout.py     which tokens the row holds, and where each token of the batch is in it
    attention.py  each sequence attends to its own tokens only, at the positions that it has alone
    forward.py    TRL's fused forward over the row; its output is put back in the batch's shape
    head.py       the language-model head on a CPU, whose logits are computed once
    support.py    the rules by which a run or a model is unsupported
    proof.py      a comparison with the padded batch, made before the first step

Every token has the hidden state that it has in the padded batch, so losses, metrics and gradients
are TRL's, except for the order of floating-point sums. Autograd adds up what both answers send back
to a shared token. Under dropout a shared token draws one mask for both answers.

The idea is that of Wang and Hegde, "Accelerating Direct Preference Optimization with Prefix
Sharing" (2024), arXiv:2410.20305. The paper masks one attention call over the row with
FlexAttention; this package calls the model's own attention, so that windows and soft caps hold.
"""

from peft import PeftModel
from trl import DPOTrainer

from dpo_wrap.config import Settings
from dpo_wrap.prefix_sharing.forward import PrefixSharing
from dpo_wrap.prefix_sharing.proof import share_if_equal
from dpo_wrap.prefix_sharing.support import UnsupportedModelError, config_error


def share_prefixes(
    trainer: DPOTrainer, settings: Settings, unsupported_reason: str | None
) -> PrefixSharing:
    """Share prefixes in the trainer's policy and reference, if each of them supports it.

    `unsupported_reason` is the result of `unsupported_before_loading`. Raises ConfigError for a
    reason under `prefix_sharing: on`.
    """
    if settings.prefix_sharing == "off":
        return PrefixSharing("the config sets prefix_sharing: off")
    sharing, policy, reference = PrefixSharing(), trainer.model, trainer.ref_model
    try:
        if unsupported_reason is not None:
            raise UnsupportedModelError(unsupported_reason)
        if isinstance(policy, PeftModel):
            policy = policy.get_base_model()
        # With dropout two passes would differ. The reference is always in evaluation mode.
        training = settings.trl.get("disable_dropout", True)
        share_if_equal(trainer, policy, sharing, training)
        if reference is not None:
            reference = trainer.accelerator.unwrap_model(reference)
            share_if_equal(trainer, reference, sharing, training=False)
    except UnsupportedModelError as error:
        sharing.restore.close()
        if settings.prefix_sharing == "on":
            raise config_error(settings, str(error)) from error
        return PrefixSharing(str(error))
    return sharing
