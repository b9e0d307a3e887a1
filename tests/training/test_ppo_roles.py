"""Four roles on one base say what four models would, and answers are sampled as the policy gives them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

from training import adapters, models
from training.ppo import losses
from training.ppo.roles import POLICY, REFERENCE, REWARD, VALUE, Roles
from training.ppo.rollouts import lay_out, sample
from training.recipe_base import Head, Lora

LORA = Lora(r=4, alpha=8)
PROMPTS = [[9, 10, 11], [8, 9, 10, 11, 12, 13], [20], [30, 31]]
PAD, EOS = 0, 1
CPU = torch.device("cpu")


def adapter(model: Path, folder: Path, head: Head, seed: int) -> Path:
    """An adapter that changes its base much, as if it had been trained."""
    set_seed(seed)
    made = adapters.add_adapter(models.load_base(str(model), head=head), LORA, head)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    made.save_pretrained(str(folder))
    return folder


@pytest.fixture
def parent(tiny_model: Path, tmp_path: Path) -> Path:
    return adapter(tiny_model, tmp_path / "sft", "causal-lm", 1)


@pytest.fixture
def reward(tiny_model: Path, tmp_path: Path) -> Path:
    return adapter(tiny_model, tmp_path / "reward", "score", 2)


def policy(model: Path, parent: Path) -> Any:
    return adapters.load_adapter(models.load_base(str(model)), parent, trainable=True).eval()


def uniforms(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed))


def answered(model: Any, rows: torch.Tensor, prompts: list[list[int]] = PROMPTS, at_once: int = 8) -> Any:
    return sample(model, prompts, rows, 1.0, EOS, PAD, at_once)


def test_each_role_is_what_a_model_of_its_own_would_be(tiny_model: Path, parent: Path, reward: Path) -> None:
    roles = Roles(policy(tiny_model, parent), parent, reward)
    writer = policy(tiny_model, parent)
    base = models.load_base(str(tiny_model), head="score")
    base.config.pad_token_id = PAD
    judge = adapters.load_adapter(base, reward).eval()
    answers = [[40, 41, EOS], [42, 43, 44, 45], [EOS], [46, 47]]
    batch = lay_out(PROMPTS, answers, PAD, CPU)
    with torch.no_grad():
        for parameter in roles.parameters[POLICY]:
            parameter.zero_()
        said = {}
        for role in (POLICY, REFERENCE):
            with roles.acting(role):
                said[role] = losses.token_logps(roles.logits(batch), batch.answers)
        with roles.acting(VALUE):
            values = roles.values(batch)
        with roles.acting(REWARD):
            scores = roles.scores(batch)
        for row, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
            ids = torch.tensor([prompt + answer])
            for role, model in ((REFERENCE, writer), (POLICY, writer.get_base_model())):
                with writer.disable_adapter() if role == POLICY else torch.no_grad():
                    logps = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                expected = logps.gather(-1, torch.tensor(answer)[:, None])[:, 0]
                assert torch.allclose(said[role][row, : len(answer)], expected, atol=1e-5)
            assert scores[row].item() == pytest.approx(judge(input_ids=ids).logits.item(), abs=1e-5)
            # The value function starts as the reward model, and speaks before each token.
            for t in range(len(answer)):
                before = judge(input_ids=ids[:, : len(prompt) + t]).logits.item()
                assert values[row, t].item() == pytest.approx(before, abs=1e-5)


def test_without_parent_and_reward_model_the_reference_is_the_base_and_values_start_at_zero(tiny_model: Path) -> None:
    set_seed(0)
    roles = Roles(adapters.add_adapter(models.load_base(str(tiny_model)), LORA).eval(), None, None)
    batch = lay_out(PROMPTS, [[40, EOS]] * 4, PAD, CPU)
    with torch.no_grad():
        for parameter in roles.parameters[POLICY]:
            parameter.add_(0.3)
        with roles.acting(REFERENCE):
            reference = roles.logits(batch)
        with roles.acting(POLICY):
            moved = roles.logits(batch)
        with roles.acting(VALUE):
            assert (roles.values(batch) == 0).all()
        expected = models.load_base(str(tiny_model))(**batch.inputs).logits[:, -3:-1]
    assert torch.allclose(reference, expected, atol=1e-5)
    assert not torch.allclose(moved, expected, atol=1e-2)


def test_what_trains_is_the_policy_and_the_value_function_whoever_acts(
    tiny_model: Path, parent: Path, reward: Path
) -> None:
    roles = Roles(policy(tiny_model, parent), parent, reward)
    trained = {name for name, p in roles.model.named_parameters() if p.requires_grad}
    assert {name.split(".")[-2] for name in trained} == {POLICY, VALUE}
    for role in (POLICY, REFERENCE, VALUE, REWARD):
        with roles.acting(role):
            pass
        assert {name for name, p in roles.model.named_parameters() if p.requires_grad} == trained
    ours = sum(p.numel() for role in (POLICY, VALUE) for p in roles.parameters[role])
    assert ours == sum(p.numel() for p in roles.model.parameters() if p.requires_grad)


def test_the_backbone_is_there_once(tiny_model: Path, parent: Path, reward: Path) -> None:
    roles = Roles(policy(tiny_model, parent), parent, reward)
    alone = sum(p.numel() for p in models.load_base(str(tiny_model)).parameters())
    small = [n for n, _ in roles.model.named_parameters() if "lora_" in n or "score" in n]
    whole = [p.numel() for n, p in roles.model.named_parameters() if n not in small]
    assert sum(whole) == alone


def test_an_answer_depends_on_its_own_row_alone(tiny_model: Path, parent: Path) -> None:
    model = policy(tiny_model, parent)
    rows = uniforms(4, 40)
    together, in_pairs = answered(model, rows), answered(model, rows, at_once=2)
    assert [len(answer) for answer in together.tokens] != [40] * 4
    assert together.tokens == in_pairs.tokens
    for row, prompt in enumerate(PROMPTS):
        alone = answered(model, rows[row : row + 1], [prompt])
        assert alone.tokens == [together.tokens[row]]
        assert torch.allclose(alone.logps[0], together.logps[row], atol=1e-5)


def test_what_sampling_notes_is_what_a_pass_over_the_row_says(tiny_model: Path, parent: Path) -> None:
    model = policy(tiny_model, parent)
    found = answered(model, uniforms(4, 40))
    batch = lay_out(PROMPTS, found.tokens, PAD, CPU)
    with torch.no_grad():
        logits = model(**batch.inputs, logits_to_keep=batch.width + 1).logits[:, :-1]
    logps, entropies = losses.token_logps(logits, batch.answers), losses.entropy(logits)
    assert torch.allclose(found.logps[:, : batch.width], logps * batch.mask, atol=1e-5)
    assert torch.allclose(found.entropies[:, : batch.width], entropies * batch.mask, atol=1e-5)
    for answer, length in zip(found.tokens, batch.mask.sum(1), strict=True):
        assert len(answer) == length
        assert EOS not in answer[:-1]


def test_tokens_come_as_often_as_the_policy_gives_them(tiny_model: Path, parent: Path) -> None:
    model, temperature, draws = policy(tiny_model, parent), 0.5, 4000
    grid = (torch.arange(draws) + 0.5)[:, None] / draws
    found = sample(model, [PROMPTS[0]] * draws, grid, temperature, EOS, PAD, draws)
    counts = torch.bincount(torch.tensor([answer[0] for answer in found.tokens]), minlength=model.config.vocab_size)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    expected = (logits / temperature).softmax(-1)
    assert torch.allclose(counts / draws, expected, atol=1.5 / draws)
    assert found.logps[0, 0].item() == pytest.approx(expected[found.tokens[0][0]].log().item(), abs=1e-4)
