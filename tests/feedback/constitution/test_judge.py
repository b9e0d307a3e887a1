"""The judge: both orders, averaged and clamped exactly as planted, and nothing asked twice."""

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from feedback.constitution.comparison import CLAMP, Judging, Tally, read_letter
from feedback.constitution.judge import Choosing, Judged, judge, plan_of
from feedback.constitution.principles import SHIPPED, load
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import TIE, Candidate, Judgement
from feedback.workspace import Workspace
from tests.feedback.constitution.faulty import Reaction, completion, refusal, serving
from tests.feedback.constitution.judges import React, candidate, endpoint, planted, probability_of_a, voting

HELPFUL = Choosing(principle="helpful")
Judge = Callable[..., tuple[Judged, list[Judgement]]]


@pytest.fixture
def judged(workspace: Workspace, tmp_path: Path) -> Judge:
    """Judge candidates by a planted judge; the result, and what stands in the order of the candidates."""

    def run(
        react: React,
        *candidates: Candidate,
        choosing: Choosing = HELPFUL,
        judging: Judging = Judging(),  # noqa: B008 - frozen
        server: Any = None,
        **settings: Any,
    ) -> tuple[Judged, list[Judgement]]:
        with serving(react) as running, Database(workspace.database) as database:
            database.add("c", candidates)
            result = judge(
                workspace,
                endpoint(running, Path(mkdtemp(dir=tmp_path)), **settings),
                "c",
                choosing,
                judging,
                lambda line: None,
            )
            if server is not None:
                server.append(running)
            standing = list(database.judgements(["c"]))
        order = [c.id for c in candidates]
        mine = [judgement for judgement in standing if judgement.candidate_id in order]
        return result, sorted(mine, key=lambda j: order.index(j.candidate_id))

    return run


@pytest.mark.parametrize("bias", [0.0, 0.7, -2.0])
def test_probability_is_the_mean_of_both_orders(judged: Judge, bias: float) -> None:
    candidates = [candidate("q", 1, 3), candidate("q", 2.5, 2), candidate("r", -1, 0.25)]
    result, judgements = judged(planted(bias), *candidates)
    assert result.new == 3
    for judgement, (left, right) in zip(judgements, [(1, 3), (2.5, 2), (-1, 0.25)], strict=True):
        first = probability_of_a((left, right), bias)
        second = 1 - probability_of_a((right, left), bias)
        expected = (first + second) / 2
        assert judgement.preferred == (0 if expected > 0.5 else 1)
        assert judgement.probability == pytest.approx(max(expected, 1 - expected), abs=1e-6)
        assert judgement.evidence["orders"] == f"0:1 {first:.6f} {second:.6f}"


def test_says_who_judged_by_what(judged: Judge) -> None:
    result, (judgement,) = judged(planted(), candidate("q", 1, 3))
    assert (judgement.rater.kind, judgement.rater.name) == ("ai", "planted")
    assert (judgement.source, judgement.principle) == ("constitution", "helpful")
    assert judgement.evidence["constitution"] == load(SHIPPED).name
    assert len(judgement.evidence["asked"]) == 64
    assert judgement.rationale is None
    assert (result.tally.asked, result.tally.compared, result.tally.flips) == (2, 1, 0)


def test_a_judge_that_sees_places_only_is_undecided(judged: Judge) -> None:
    result, (judgement,) = judged(
        lambda body, before: Reaction(body=completion("A", {"A": math.log(0.9), "B": math.log(0.1)})),
        candidate("q", 1, 2),
    )
    assert judgement.preferred == TIE
    assert judgement.probability == 0.5
    assert (result.ties, result.tally.flips) == (1, 1)


def test_counts_flips(judged: Judge) -> None:
    # With a bias of 1 the place decides where the worths are less than 1 apart, and only there.
    apart = [0.5, 0.9, 1.5, 3.0, -0.2]
    result, _ = judged(planted(bias=1.0), *(candidate(f"q{d}", 0, d) for d in apart))
    assert (result.tally.compared, result.tally.flips) == (5, 3)


def test_reasoning_comes_first_and_clamps(judged: Judge) -> None:
    servers: list[Any] = []
    result, judgements = judged(
        planted(), candidate("q", 0, 5), candidate("r", 0, 0.1), judging=Judging(reasoning=True), server=servers
    )
    assert result.new == 2
    assert judgements[0].probability == CLAMP[1]
    assert judgements[1].probability == pytest.approx(1 - probability_of_a((0, 0.1), 0), abs=1e-6)
    assert judgements[0].rationale is not None
    assert "helpful, (A) is response 1, (B) is response 0:\nBoth have their merits." in judgements[0].rationale
    decided = [body["messages"] for body in servers[0].bodies if "logprobs" in body]
    assert [[m["role"] for m in messages] for messages in decided] == [["user", "assistant", "user"]] * 4
    assert all(messages[1]["content"] == "Both have their merits." for messages in decided)


def test_nothing_to_decide_by_without_reasoning(judged: Judge) -> None:
    result, judgements = judged(
        lambda body, before: refusal(400, "too long"), candidate("q", 0, 5), judging=Judging(reasoning=True)
    )
    assert not judgements
    assert (result.unanswered, result.tally.failed, result.tally.asked) == (1, 2, 2)
    # What got no usable answer before is tried again.
    result, _ = judged(voting("  "), candidate("r", 0, 5), judging=Judging(reasoning=True))
    assert result.tally.unparsable == 4


def test_counts_votes(judged: Judge) -> None:
    # Three of four votes that name a letter are for A in both orders, so that the orders are opposed.
    result, (judgement,) = judged(
        voting("A", "(A)", "I'd say neither.", "The answer is B.", "A."), candidate("q", 0, 5)
    )
    assert judgement.evidence["orders"] == "0:1 0.750000 0.250000"
    assert judgement.preferred == TIE
    assert (result.tally.by_votes, result.tally.flips) == (2, 1)


def test_counts_refusals_and_words_that_name_no_choice(judged: Judge) -> None:
    result, judgements = judged(voting("I'm sorry, but I can't compare these."), candidate("q", 0, 5))
    assert not judgements
    assert (result.tally.refused, result.tally.unparsable, result.unanswered) == (2, 0, 1)
    result, _ = judged(voting("Bananas are yellow."), candidate("r", 0, 5))
    # What got no usable answer before is tried again.
    assert (result.tally.refused, result.tally.unparsable) == (0, 4)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        (" (B).", "B"),
        ("**A**\nIt is clearer.", "A"),
        ("The answer is (B).", "B"),
        ("Response A is better.", "A"),
        ("I prefer option B: it is short.", "B"),
        ("A better response would say more.", "unparsable"),
        ("(A) is short, (B) is long.", "unparsable"),
        ("", "unparsable"),
        ("I cannot choose between them.", "refused"),
        ("As an AI, I have no preference.", "refused"),
    ],
)
def test_reads_letters(text: str, letter: str) -> None:
    assert read_letter(text) == letter


def test_says_when_the_model_would_rather_say_something_else(judged: Judge) -> None:
    result, (judgement,) = judged(planted(scale=0.01), candidate("q", 0, 1))
    assert result.tally.elsewhere == 2
    assert judgement.probability == pytest.approx(1 - probability_of_a((0, 1), 0), abs=1e-6)


def test_ranks_more_than_two(judged: Judge) -> None:
    result, (judgement,) = judged(planted(), candidate("q", 1, 4, 2, 4))
    assert judgement.preferred is None
    assert result.tally.compared == 5
    # Responses 1 and 3 are the same text, and equally good.
    assert judgement.ranking == ((1, 3), (2,), (0,))
    ordered = [(4, 2), (4, 1), (4, 2), (4, 1), (2, 1)]
    expected = sum(probability_of_a(pair, 0) for pair in ordered) / len(ordered)
    assert judgement.probability == pytest.approx(expected, abs=1e-6)


def test_an_ensemble_takes_the_mean_of_all_that_apply(judged: Judge) -> None:
    constitution = load(SHIPPED)
    questions = {p.judge: place for place, p in enumerate(constitution.principles)}

    def react(body: dict[str, Any], before: int) -> Reaction:
        asked = body["messages"][-1]["content"]
        (place,) = (place for question, place in questions.items() if question in asked)
        # Each principle is differently sure of the worthier answer.
        p = 0.5 + place / 40
        a_is_worthier = asked.index("worth 2.") < asked.index("worth 1.")
        p = p if a_is_worthier else 1 - p
        return Reaction(body=completion("A", {"A": math.log(p), "B": math.log(1 - p)}))

    pair, grounded = candidate("q", 1.5, 2.5), candidate("q", 1.5, 2.5, context="Some text.")
    result, judgements = judged(react, pair, grounded, choosing=Choosing(ensemble=True))
    assert [j.principle for j in judgements] == ["ensemble", "ensemble"]
    without = [p for p, principle in enumerate(constitution.principles) if not principle.needs_context]
    assert judgements[0].probability == pytest.approx(0.5 + sum(without) / len(without) / 40, abs=1e-6)
    assert judgements[1].probability == pytest.approx(0.5 + sum(range(10)) / 10 / 40, abs=1e-6)
    assert result.tally.compared == len(without) + 10


def test_draws_a_principle_by_candidate_and_seed() -> None:
    constitution = load(SHIPPED)
    candidates = [candidate(f"q{i}", 1, 2, context="text") for i in range(300)]
    drawn = [plan_of(constitution, c, Choosing(), Judging()).principle for c in candidates]
    assert drawn == [plan_of(constitution, c, Choosing(), Judging()).principle for c in candidates]
    assert drawn != [plan_of(constitution, c, Choosing(seed=1), Judging()).principle for c in candidates]
    assert set(drawn) == {p.id for p in constitution.principles}
    ungrounded = [plan_of(constitution, candidate(f"q{i}", 1, 2), Choosing(), Judging()).principle for i in range(300)]
    assert set(ungrounded) == {p.id for p in constitution.principles if not p.needs_context}


def test_leaves_out_what_cannot_be_compared(judged: Judge) -> None:
    result, judgements = judged(
        planted(),
        candidate("q", 1),
        candidate("q", 2, 2),
        candidate("q", 1, 2),
        choosing=Choosing(principle="grounded"),
    )
    assert not judgements
    assert (result.single, result.outside) == (2, 1)


def test_goes_on_where_it_was_and_asks_nothing_twice(workspace: Workspace, tmp_path: Path) -> None:
    candidates = [candidate(f"q{i}", 0, 1 + i / 10) for i in range(30)]
    with serving(planted()) as server, Database(workspace.database) as database:
        database.add("c", candidates)

        def run(**settings: Any) -> Judged:
            model = endpoint(server, tmp_path, concurrency=4, **settings)
            return judge(workspace, model, "c", Choosing(), Judging(), lambda line: None)

        with pytest.raises(UserError, match="max_requests"):
            run(max_requests=25)
        assert run().new == 30
        assert sum(server.asked.values()) == 60
        assert set(server.asked.values()) == {1}
        interrupted = [j.verdict for j in database.judgements(["c"])]
        assert (run().standing, sum(server.asked.values())) == (30, 60)
        # What an uninterrupted job says is the same, to the last digit.
        database.add("d", candidates)
        model = endpoint(server, tmp_path / "elsewhere")
        judge(workspace, model, "d", Choosing(), Judging(), lambda line: None)
        assert [j.verdict for j in database.judgements(["d"])] == interrupted


def test_other_wording_is_judged_anew_and_replaces_the_old(judged: Judge, workspace: Workspace) -> None:
    pair = candidate("q", 0, 1)
    _, before = judged(planted(), pair)
    own = SHIPPED.read_text().replace("version: 1", "version: 2").replace("need, in as few", "want, in as few")
    (workspace.root / "own.yaml").write_text(own)
    settings = workspace.root / "veritune.toml"
    settings.write_text(settings.read_text().replace("[constitution]", '[constitution]\nprinciples = "own.yaml"'))
    vars(workspace).pop("settings", None)
    result, after = judged(planted(), pair)
    assert result.new == 1
    assert len(after) == 1
    assert after[0].evidence["constitution"].startswith("2-")
    assert after[0].evidence["asked"] != before[0].evidence["asked"]


def test_judgements_without_evidence_keep_their_ids() -> None:
    said = Judgement.model_validate(
        {
            "candidate_id": "c",
            "rater": {"kind": "human", "name": "ann"},
            "source": "test",
            "preferred": 1,
            "created_at": "2026-01-01T00:00:00Z",
        }
    )
    assert said.id == "fda6d9b30bed15d81080dc60a12a12a8326e6b465126af21b2ef058a1a091515"
    assert said.model_copy(update={"evidence": {"a": "b"}}).verdict != said.verdict


def test_a_real_model_is_asked_as_it_should_be(workspace: Workspace, tiny_model: Path) -> None:
    """Its probabilities are those of its own next-token distribution, worked out without any of our code."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evaluation.local import load as load_model
    from feedback.constitution.comparison import Comparison, choice, compare

    constitution = load(SHIPPED)
    pair = candidate("q", 1, 2)
    # The tiny model reads few tokens.
    short = constitution.named("helpful").model_copy(update={"judge": "Better?"})
    comparison = Comparison(pair, 0, 1, short)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = {"max_position_embeddings": 1024}
    wide = workspace.root / "wide"
    model = AutoModelForCausalLM.from_pretrained(tiny_model, **config).eval()
    model.save_pretrained(wide)
    tokenizer.save_pretrained(wide)
    tally = Tally()
    (outcome,) = compare(load_model(workspace, str(wide)), [comparison], Judging(), tally, lambda line: None)
    expected = []
    for swapped in (False, True):
        messages = [m.model_dump() for m in choice(comparison, swapped, Judging()).messages]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, -1]
        a, b = (logits[tokenizer.convert_tokens_to_ids(letter)].item() for letter in "AB")
        expected.append(1 / (1 + math.exp(b - a)))
    assert outcome.orders == pytest.approx((expected[0], 1 - expected[1]), abs=1e-5)
    assert tally.elsewhere == 2
