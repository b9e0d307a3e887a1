"""`validate-detectors`: each detector that the settings allow, on each set of labelled answers that suits it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evaluation import checks, labelled_answers, local
from evaluation.checks import SAMPLES
from evaluation.detectors import Accuracy, measure
from evaluation.generation import encode_prompt
from evaluation.hallucination import scores
from evaluation.hallucination.claims import Corpus, check_claims
from evaluation.hallucination.closed_book import grade
from evaluation.hallucination.entailment import CrossEncoder, Entailment
from evaluation.hallucination.groundedness import Grounding, by_entailment, ungrounded
from evaluation.labelled_answers import SETS, Labelled, LabelledSet
from evaluation.local import LocalModel
from feedback import versions
from feedback.constitution.generators import Answer, Request
from feedback.errors import UserError
from feedback.schema import grounded_prompt, prompt_key, user_message
from feedback.workspace import EvaluationSettings, Workspace
from training import labelled, models, runs
from training.abstention import abstains
from training.matching import matches
from training.recipe import ClassifierRecipe
from training.runs import Run

# Of an answer to a question of these sets; a labelled answer may be longer.
MAX_NEW_TOKENS = 64
OWN = "efficientqa, own answers"


def validate(
    workspace: Workspace,
    model_names: Sequence[str] = (),
    data: Mapping[str, Path] | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    say: Callable[[str], None] = print,
) -> list[Accuracy]:
    """Measure every detector.

    Args:
        model_names: runs or models whose confidence and consistency are measured.
        data: files by the names of labelled_answers.SETS, before those of evaluation.data.
        limit: take the first so many lines of each file only.
        batch_size: answers that a model works on at a time.

    Raises:
        UserError: no labelled answers, a file that can't be read, or a model that can't be loaded.
    """
    settings = workspace.settings.evaluation
    sets = _sets(workspace, data or {}, limit)
    entailment = CrossEncoder(settings.entailment, batch_size) if settings.entailment else None
    found = [*_by_rules(sets), *_by_context(workspace, sets, entailment, say)]
    for name in model_names:
        model = local.load(workspace, name)
        model.batch_size = batch_size
        found += _Asked(model, settings, entailment, say).accuracies(sets)
    return found


def _sets(workspace: Workspace, data: Mapping[str, Path], limit: int | None) -> dict[str, LabelledSet]:
    named = {
        name: workspace.root / path for name, path in workspace.settings.evaluation.data.items() if name in SETS
    } | dict(data)
    if not named:
        raise UserError(
            f"no labelled answers: name files with --data NAME=FILE or in veritune.toml under [evaluation.data]; "
            f"NAME is one of {', '.join(SETS)}"
        )
    unknown = [name for name in named if name not in SETS]
    mistakes = [f"--data {name}: not a set of labelled answers; there is {', '.join(SETS)}" for name in unknown]
    found = {}
    for name, path in named.items():
        if name in SETS:
            try:
                found[name] = labelled_answers.read(name, path, limit)
            except UserError as error:
                mistakes += error.lines
    if mistakes:
        raise UserError(*mistakes)
    return found


def _by_rules(sets: Mapping[str, LabelledSet]) -> Iterator[Accuracy]:
    """Detectors that ask no model."""
    if rated := sets.get("efficientqa"):
        wrong = [float(not any(matches(item.answer, one) for one in item.references)) for item in rated.items]
        yield measure("matching", (), rated, wrong)
    if known := sets.get("abstentions"):
        yield measure("abstention", (), known, [float(abstains(item.answer)) for item in known.items])


def _by_context(
    workspace: Workspace, sets: Mapping[str, LabelledSet], entailment: Entailment | None, say: Callable[[str], None]
) -> Iterator[Accuracy]:
    """Detectors that hold an answer against a text: its context, or a corpus of all contexts."""
    settings = workspace.settings.evaluation
    if not (pairs := sets.get("halueval")):
        return
    if settings.grounded:
        run = runs.find(workspace, settings.grounded)
        taught = _taught(workspace, run)
        new = replace(pairs, items=tuple(item for item in pairs.items if _prompt(item) not in taught))
        say(f"halueval: {len(pairs.items) - len(new.items)} answers left out, which {run.id} was trained on")
        yield measure("ungrounded", (run.id,), new, _ungrounded(new, checks.classifier(workspace)))
    if entailment and settings.entailment:
        by = (models.short_name(settings.entailment),)
        yield measure("not_entailed", by, pairs, _ungrounded(pairs, by_entailment(entailment)))
        corpus = Corpus(list(dict.fromkeys(item.context or "" for item in pairs.items)))
        claimed = [
            scores.of_claims(check_claims(item.answer, corpus, entailment, item.question)) for item in pairs.items
        ]
        for name in ("unsupported", "contradicted"):
            yield measure(name, by, pairs, [shares[name] for shares in claimed])


def _ungrounded(labelled: LabelledSet, judge: Grounding) -> list[float]:
    asked = [(item.context or "", item.question, item.answer) for item in labelled.items]
    return [found.score for found in ungrounded(asked, judge)]


def _taught(workspace: Workspace, run: Run) -> set[str]:
    """The prompts that a classifier was trained on.

    Raises:
        UserError: what it was trained on is no longer there.
    """
    recipe = run.recipe
    data: labelled.Data
    if isinstance(recipe, ClassifierRecipe) and labelled.is_file(recipe.dataset):
        data = labelled.read(Path(recipe.dataset), recipe.columns)
    else:
        data = versions.load(workspace, run.manifest["dataset"]["id"])
    return {prompt_key(example.prompt) for example in labelled.examples_of(data, "train") if example.prompt}


def _prompt(item: Labelled) -> str:
    return prompt_key(grounded_prompt(user_message(item.question), item.context))


class _Asked:
    """Detectors that ask the model that is evaluated."""

    def __init__(
        self,
        model: LocalModel,
        settings: EvaluationSettings,
        entailment: Entailment | None,
        say: Callable[[str], None],
    ) -> None:
        self.model, self.entailment, self.say = model, entailment, say
        self.count, self.temperature = settings.samples or SAMPLES, settings.temperature
        self.judge = settings.entailment

    def accuracies(self, sets: Mapping[str, LabelledSet]) -> Iterator[Accuracy]:
        """On answers of others, and on the model's own to the questions of `efficientqa`."""
        by = (self.model.name,)
        with_judge = (*by, *([models.short_name(self.judge)] if self.judge else ()))
        sets = dict(sets)
        if rated := sets.pop("efficientqa", None):
            sets[OWN] = own = self._own_answers(rated)
            samples = self._samples(own.items)
            found = [scores.entropy(item.question, samples[item.question], self.entailment) for item in own.items]
            yield measure("semantic_entropy", with_judge, own, found)
        for name in ("halueval_human", "truthfulqa_answers", OWN):
            if answers := sets.get(name):
                yield measure("confidence", by, answers, self._doubts(answers.items))
                samples = self._samples(answers.items)
                asked = [(item.question, item.answer, samples[item.question]) for item in answers.items]
                found = [scores.inconsistency(answer, drawn) for _, answer, drawn in asked]
                yield measure("inconsistency", by, answers, found)
                if self.entailment:
                    found = [scores.contradiction(*each, self.entailment) for each in asked]
                    yield measure("contradiction", with_judge, answers, found)

    def _own_answers(self, rated: LabelledSet) -> LabelledSet:
        """What the model says itself, graded by the answers that people accepted; what it declines is left out."""
        accepted: dict[str, list[str]] = {}
        for item in rated.items:
            right = () if item.positive else (item.answer,)
            accepted.setdefault(item.question, list(item.references)).extend(right)
        requests = [Request(user_message(question), MAX_NEW_TOKENS) for question in accepted]
        items = []
        for (question, references), answer in zip(accepted.items(), self._ask(requests), strict=True):
            text = answer.texts[0].split("\n")[0].strip() if answer.texts else ""
            outcome = grade(text, references)
            if text and outcome != "abstained":
                items.append(Labelled(question, text, outcome == "incorrect", references=tuple(references)))
        return replace(rated, name=OWN, items=tuple(items))

    def _samples(self, items: Sequence[Labelled]) -> dict[str, Sequence[str]]:
        """Answers by question, as the model draws them."""
        questions = list(dict.fromkeys(item.question for item in items))
        requests = [
            Request(user_message(question), MAX_NEW_TOKENS, self.temperature, self.count) for question in questions
        ]
        answers = self._ask(requests)
        return {question: answer.texts for question, answer in zip(questions, answers, strict=True)}

    def _doubts(self, items: Sequence[Labelled]) -> list[float | None]:
        """Minus the log-probability of each answer."""
        options: dict[str, list[str]] = {}
        for item in items:
            if item.answer and self._fits(item):
                options.setdefault(item.question, []).append(item.answer)
        requests = [Request(user_message(q), 1, options=tuple(dict.fromkeys(said))) for q, said in options.items()]
        found = {
            (question.messages[-1].content, option): -logprob
            for question, answer in zip(requests, self._ask(requests), strict=True)
            for option, logprob in zip(question.options, answer.options or (), strict=False)
        }
        return [found.get((item.question, item.answer)) for item in items]

    def _fits(self, item: Labelled) -> bool:
        """Whether the model can read question and answer together."""
        context = getattr(self.model.side.model.config, "max_position_embeddings", None)
        if context is None:
            return True
        try:
            asked = len(encode_prompt(self.model.side, user_message(item.question)))
        except UserError:
            return False
        return bool(asked + len(self.model.side.tokenizer(item.answer)["input_ids"]) <= context)

    def _ask(self, requests: Sequence[Request]) -> list[Answer]:
        answers = dict(self.model.answer(requests, self.say))
        return [answers[place] for place in range(len(requests))]
