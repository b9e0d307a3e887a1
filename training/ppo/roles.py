"""One loaded base in PPO's four roles: policy, reference, value function and reward model, each an adapter on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor

from training.ppo.rollouts import Batch

if TYPE_CHECKING:
    from peft import PeftModel

# PEFT's name of the adapter that a run trains, and so of the policy.
POLICY, REFERENCE, VALUE, REWARD = "default", "reference", "value", "reward"
TRAINED = (POLICY, VALUE)


class Roles:
    """The base is held once, whatever its precision; a role costs its LoRA matrices, and a row of a head for two."""

    def __init__(self, model: "PeftModel", parent: Path | None, reward: Path | None) -> None:
        """Add the roles to a model that has the policy's adapter.

        Args:
            model: a causal language model with one adapter.
            parent: the adapter that the policy starts from and is held to; None: the bare base.
            reward: the adapter of a reward model on this base; None: scores come from elsewhere.
        """
        self.model = model
        self.base = model.get_base_model()
        # PEFT gives each adapter that names this module a head of its own.
        self.base.score = torch.nn.Linear(self.base.config.get_text_config().hidden_size, 1, bias=False)
        self.base.score.to(model.device, torch.float32).requires_grad_(False)
        if parent is not None:
            model.load_adapter(str(parent), REFERENCE)
        if reward is not None:
            model.load_adapter(str(reward), REWARD)
            # InstructGPT, section 3.5: the value function starts as the reward model.
            model.load_adapter(str(reward), VALUE, is_trainable=True)
        else:
            config = dict(model.peft_config[POLICY].to_dict(), modules_to_save=["score"], inference_mode=False)
            torch.nn.init.zeros_(self.base.score.weight)
            model.add_adapter(VALUE, type(model.peft_config[POLICY])(**config))
        for module in model.modules():
            # With dropout, pi / pi_old would differ from 1 before anything was learned.
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.set_adapter(POLICY)
        model.set_requires_grad(VALUE)
        self._layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
        trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.parameters = {role: [p for name, p in trained if name.split(".")[-2] == role] for role in TRAINED}

    @contextmanager
    def acting(self, role: str) -> Iterator[None]:
        """The model in one role; outside of it, it is the policy. Backward passes belong inside too.

        The reference of a policy without parent is the base, since no layer has an adapter of that name.
        """
        try:
            self._activate(role)
            yield
        finally:
            self._activate(POLICY)

    def logits(self, batch: Batch) -> Tensor:
        """[rows, tokens, vocabulary] of who is acting, each from what stands before its token."""
        return self.model(**batch.inputs, logits_to_keep=batch.width + 1, use_cache=False).logits[:, :-1]

    def values(self, batch: Batch) -> Tensor:
        """[rows, tokens]: what the head of who is acting says before each token of the answers."""
        return self._head(batch)[:, :-1]

    def scores(self, batch: Batch) -> Tensor:
        """[rows]: what the head of who is acting says at each answer's last token."""
        return self._head(batch).gather(1, batch.mask.sum(1, keepdim=True).long())[:, 0]

    def _head(self, batch: Batch) -> Tensor:
        hidden = self.base.base_model(**batch.inputs, use_cache=False).last_hidden_state
        return self.base.score(hidden[:, -batch.width - 1 :].float())[..., 0]

    def _activate(self, role: str) -> None:
        # PEFT's own set_adapter also freezes all other adapters, and takes longer than a small model's forward pass.
        for layer in self._layers:
            layer._active_adapter = [role]
