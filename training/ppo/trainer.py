"""PPO's frame: each step samples answers, scores them, and updates policy and value function on them."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from training.errors import TrainingError
from training.ppo import losses
from training.ppo.experience import Experience, Rollouts, Scale, experience, measured
from training.ppo.roles import POLICY, REFERENCE, REWARD, TRAINED, VALUE, Roles
from training.ppo.rollouts import Batch, Ids, lay_out, sample
from training.recipe import PPORecipe
from training.rewards import Reward
from training.trainer import RunTrainer

# Decoding keeps keys and values only, 4 numbers a token, layer and hidden unit, where training keeps about 34
# (arXiv 2205.05198): so many times the rows fit into the same memory.
SAMPLED_AT_ONCE = 8
LARGEST_GRADIENT = 1.0
STATE = "ppo.json"

# Prompts and completions as token ids.
Demonstrations = Sequence[tuple[list[int], list[int]]]


class PPOTrainer(RunTrainer, Trainer):
    """A step of transformers' trainer is one whole iteration, and its batch the prompts of that iteration.

    The optimiser steps inside of it; the trainer's own step, after it, finds no gradients and does nothing. So
    checkpoints fall between iterations, and an iteration may end early.
    """

    recipe: PPORecipe
    told = ("reward/mean", "kl", "length/mean")
    control: Any

    def __init__(
        self,
        recipe: PPORecipe,
        roles: Roles,
        reward: Reward | None,
        demonstrations: Demonstrations,
        **kwargs: Any,
    ) -> None:
        """Keep what transformers' trainer does not know of.

        Args:
            reward: None where the reward model is one of the roles.
            demonstrations: for the PTX term.
        """
        super().__init__(model=roles.model, data_collator=lambda rows: {"rows": rows}, **kwargs)
        self.recipe, self.roles, self.reward, self.demonstrations = recipe, roles, reward, demonstrations
        self.kl_coefficient = recipe.kl_coefficient
        self.scale: Scale | None = None if recipe.scale_scores else Scale(0.0, 1.0)
        self._measured: list[dict[str, float]] = []

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Sample answers to the prompts, and learn from them; the loss is the mean over the updates."""
        recipe = self.recipe
        # Not the global one: what a step draws depends on the seed and the step alone.
        generator = torch.Generator().manual_seed((recipe.seed << 32) + self.state.global_step)
        rollouts = self._rollouts(inputs["rows"], generator)
        self.scale = self.scale or Scale.of(rollouts.scores)
        learned = self._learn(experience(rollouts, recipe, self.scale, self.kl_coefficient), generator)
        seen = measured(rollouts) | {"kl_coefficient": self.kl_coefficient}
        self._measured.append(seen | learned)
        if recipe.kl_target is not None:
            self.kl_coefficient = losses.adapted_coefficient(
                self.kl_coefficient, seen["kl"], recipe.kl_target, len(rollouts.prompts), recipe.kl_horizon
            )
        return torch.tensor(learned["loss/policy"] + learned["loss/value"], device=self.args.device)

    @torch.no_grad()
    def _rollouts(self, rows: Sequence[dict[str, Any]], generator: torch.Generator) -> Rollouts:
        """Answers to this process's prompts and all that is known of them, with those of the other processes."""
        recipe, roles, accelerator = self.recipe, self.roles, self.accelerator
        eos, pad = self.processing_class.eos_token_id, self.processing_class.pad_token_id
        self.model.eval()
        prompts = [row["input_ids"] for row in rows]
        first = len(prompts) * accelerator.process_index
        uniforms = torch.rand(len(prompts) * accelerator.num_processes, recipe.max_new_tokens, generator=generator)
        uniforms = uniforms[first : first + len(prompts)].to(self.args.device)
        at_once = recipe.batch_size * (1 if recipe.gradient_checkpointing else SAMPLED_AT_ONCE)
        sampled = sample(roles.model, prompts, uniforms, recipe.temperature, eos, pad, at_once)
        answers = sampled.tokens
        parts = list(self._parts(prompts, answers, torch.arange(len(prompts))))

        def of_tokens(role: str, measure: Callable[[Batch], Tensor]) -> Tensor:
            found = torch.zeros_like(uniforms)
            with roles.acting(role):
                for places, batch in parts:
                    found[places, : batch.width] = measure(batch) * batch.mask
            return found

        # Below fp32 a pass over a whole row rounds otherwise than decoding did, and pi / pi_old would not begin at 1.
        exact = roles.model.dtype == torch.float32 and recipe.quantize == "none"
        logps = sampled.logps if exact else of_tokens(POLICY, self._logps)
        reference, values = of_tokens(REFERENCE, self._logps), of_tokens(VALUE, roles.values)
        scores = uniforms.new_zeros(len(prompts))
        if self.reward is not None:
            texts = self.processing_class.batch_decode(answers, skip_special_tokens=True)
            scores += torch.tensor(self.reward([row["prompt"] for row in rows], texts)).to(scores)
        else:
            with roles.acting(REWARD):
                for places, batch in parts:
                    scores[places] = roles.scores(batch)
        if not scores.isfinite().all():
            raise TrainingError(f"reward {recipe.reward}: an answer's score is {scores[~scores.isfinite()][0].item()}")
        local = Rollouts(prompts, answers, eos, logps, reference, values, scores, sampled.entropies)
        return local if accelerator.num_processes == 1 else local.gathered(accelerator)

    def _learn(self, e: Experience, generator: torch.Generator) -> dict[str, float]:
        """Several passes over the experience in minibatches, until the policy has moved as far as it may."""
        recipe = self.recipe
        size = recipe.batch_size * recipe.gradient_accumulation * self.accelerator.num_processes
        # transformers' gradient checkpointing works in training mode only; dropout is off in both.
        self.model.train(recipe.gradient_checkpointing)
        order = (torch.randperm(len(e.prompts), generator=generator) for _ in range(recipe.ppo_epochs))
        updates: list[Tensor] = []
        for minibatch in (part for epoch in order for part in epoch.split(size)):
            updates.append(self._update(e, minibatch, generator))
            if updates[-1][3] > recipe.update_kl_limit:
                break
        names = ("loss/policy", "loss/value", "loss/ptx", "update_kl", "clip_share")
        return dict(zip(names, torch.stack(updates).mean(0).tolist(), strict=True)) | {"updates": len(updates)}

    def _update(self, e: Experience, minibatch: Tensor, generator: torch.Generator) -> Tensor:
        """One step of the optimiser; returns the losses of policy, value and PTX, the KL and the share clipped."""
        recipe, roles, accelerator = self.recipe, self.roles, self.accelerator
        tokens = e.mask[minibatch].sum()
        sums = torch.zeros(5, device=self.args.device)
        mine = minibatch[accelerator.process_index :: accelerator.num_processes]
        for rows, batch in self._parts(e.prompts, e.answers, mine):
            old, advantages, old_values, returns = (
                tensor[rows, : batch.width] for tensor in (e.logps, e.advantages, e.values, e.returns)
            )
            with roles.acting(POLICY):
                logps = self._logps(batch)
                policy = losses.policy_loss(logps, old, advantages, batch.mask, recipe.clip, tokens)
                policy.backward()
            with roles.acting(VALUE):
                values = roles.values(batch)
                value = losses.value_loss(values, old_values, returns, batch.mask, recipe.value_clip, tokens)
                value.backward()
            kl = losses.moved(logps.detach(), old, batch.mask) / tokens
            clipped = losses.clipped(logps.detach(), old, batch.mask, recipe.clip) / tokens
            sums += torch.stack([policy.detach(), value.detach(), torch.zeros_like(kl), kl, clipped])
        if recipe.ptx_weight:
            sums[2] += self._pretraining(len(minibatch), generator)
        for role in TRAINED:
            parameters = roles.parameters[role]
            self._sum_over_processes(parameters)
            torch.nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
        self.optimizer.step()
        # To none, and not to zero: the trainer's own step would go on with the momentum.
        self.optimizer.zero_grad(set_to_none=True)
        return accelerator.reduce(sums)

    def _pretraining(self, rows: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(self.demonstrations), (rows,), generator=generator)
        prompts, completions = zip(*(self.demonstrations[row] for row in chosen), strict=True)
        tokens = torch.tensor(sum(map(len, completions)), device=self.args.device)
        mine = torch.arange(self.accelerator.process_index, rows, self.accelerator.num_processes)
        total = torch.zeros((), device=self.args.device)
        with self.roles.acting(POLICY):
            for _, batch in self._parts(prompts, completions, mine):
                logps = losses.token_logps(self.roles.logits(batch), batch.answers)
                loss = losses.pretraining_loss(logps, batch.mask, tokens)
                (self.recipe.ptx_weight * loss).backward()
                total += loss.detach()
        return total

    def _logps(self, batch: Batch) -> Tensor:
        """Of the answers, under the distribution that is sampled from."""
        logits, temperature = self.roles.logits(batch), self.recipe.temperature
        return losses.token_logps(logits if temperature == 1 else logits / temperature, batch.answers)

    def _parts(self, prompts: Ids, answers: Ids, rows: Tensor) -> Iterator[tuple[Tensor, Batch]]:
        """Rows of like length together, as many as fit into one pass."""
        pad, device = self.processing_class.pad_token_id, self.args.device
        lengths = torch.tensor([len(prompts[row]) + len(answers[row]) for row in rows])
        for part in rows[lengths.argsort(stable=True)].split(self.recipe.batch_size):
            yield part, lay_out([prompts[row] for row in part], [answers[row] for row in part], pad, device)

    def _sum_over_processes(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        # DistributedDataParallel can't know that roles take turns; their gradients are few enough to be added here.
        if self.accelerator.num_processes == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        summed = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]))
        for parameter, part in zip(parameters, summed.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Score answers to as many prompts of the validation split as a step has, drawn with the same numbers."""
        processes, mine = self.accelerator.num_processes, self.accelerator.process_index
        count = min(self.recipe.rollouts, -(-len(self.eval_dataset) // processes))
        # The last process may lack some, which are then asked twice.
        held_out = [self.eval_dataset[i % len(self.eval_dataset)] for i in range(count * mine, count * (mine + 1))]
        rollouts = self._rollouts(held_out, torch.Generator().manual_seed(self.recipe.seed))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured(rollouts).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= {name: sum(m[name] for m in self._measured) / len(self._measured) for name in self._measured[0]}
            self._measured.clear()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: sampling and learning differ too much for transformers' formula."""
        return 0

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None
        self.model.save_pretrained(output_dir, selected_adapters=list(TRAINED))
        state = {"kl_coefficient": self.kl_coefficient, "scale": self.scale}
        (Path(output_dir) / STATE).write_text(json.dumps(state))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        self.model.load_adapter(str(folder), POLICY, is_trainable=True)
        self.model.load_adapter(str(folder / VALUE), VALUE, is_trainable=True)
        state = json.loads((folder / STATE).read_text())
        self.kl_coefficient, self.scale = state["kl_coefficient"], state["scale"] and Scale(*state["scale"])
