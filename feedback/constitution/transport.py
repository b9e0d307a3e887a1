"""One request to an OpenAI-compatible endpoint until there is an answer: back-off, pauses that all share, a budget."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from feedback.constitution.replies import Reply, retry_after
from feedback.errors import UserError
from feedback.workspace import SETTINGS_FILE, EndpointSettings

if TYPE_CHECKING:
    import openai

KEY_VARIABLE = "VERITUNE_ENDPOINT_KEY"

# A request that fails so often is given up; so many of them in a row, and the endpoint is.
ATTEMPTS, GIVEN_UP_IN_A_ROW = 6, 8
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
# A rate limit that lets nothing through for so many seconds is left to the user.
PATIENCE = 600.0
# Shorter pauses are not worth a line.
LONG_PAUSE = 5.0
# What newer models of OpenAI's refuse, and what they take in its place.
REPLACED = {"max_tokens": "max_completion_tokens", "temperature": None, "seed": None}


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault of the program
    """The endpoint answers, but not this request."""


class Transport:
    """What the requests of one job share: the connections, the pauses, the budget and the end.

    Args:
        settings: with an address.
        say: takes a line when the endpoint slows the job down.
    """

    def __init__(self, settings: EndpointSettings, say: Callable[[str], None]) -> None:
        self.settings, self.say = settings, say
        self.address = settings.url
        self.sent = self.retried = self.tokens = 0
        self.failure: BaseException | None = None
        self._failed = asyncio.Event()
        self._without: set[str] = set()
        self._pauses_in_a_row = self._given_up_in_a_row = 0
        self._paused_until = self._last_success = time.monotonic()
        self._client = _client(settings)

    async def send(self, body: dict[str, Any]) -> Reply:
        """Ask until there is an answer.

        Raises:
            Refused: not to this request, however often it is asked.
            UserError: to no request at all, or the budget is spent.
        """
        import openai

        failures = 0
        while True:
            await self._pass_the_pause()
            self._spend()
            try:
                # Not `chat.completions.create`: its typed parameters and results cost as much as all the rest.
                data = await self._client.post("/chat/completions", cast_to=bytes, body=self._accepted(body))
                reply = Reply.model_validate_json(data)
            except openai.RateLimitError as error:
                self._slow_down(error)
            except (openai.APIConnectionError, openai.InternalServerError, ValidationError) as error:
                failures += 1
                if failures == ATTEMPTS:
                    self._give_up(error)
                await self._wait(_backoff(failures))
            except openai.APIStatusError as error:
                if not self._does_without(error):
                    self._raise_if_hopeless(error, body)
                    raise Refused(self._reason(error)) from None
            else:
                self._last_success = time.monotonic()
                self._pauses_in_a_row = self._given_up_in_a_row = 0
                self.tokens += reply.tokens
                return reply
            self.retried += 1

    def fail(self, error: BaseException) -> None:
        """End the job: what is in flight may come, nothing more is sent."""
        self.failure = self.failure or error
        self._failed.set()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()

    def _spend(self) -> None:
        """Count a request, unless the job has failed or its budget is spent."""
        for name, spent in (("max_requests", self.sent), ("max_tokens", self.tokens)):
            most = getattr(self.settings, name)
            if most is not None and spent >= most:
                self.fail(
                    UserError(
                        f"endpoint.{name} = {most}: spent by this command; raise it in {SETTINGS_FILE}, or repeat the "
                        "command, which goes on where it was"
                    )
                )
        if self.failure:
            raise self.failure
        self.sent += 1

    def _slow_down(self, error: "openai.RateLimitError") -> None:
        """Nobody asks again until the endpoint's own time, or a growing one, has passed."""
        if error.code == "insufficient_quota":
            raise UserError(f"endpoint {self.address}: {self._reason(error)}") from None
        now = time.monotonic()
        first = now >= self._paused_until
        self._pauses_in_a_row += first
        wished = retry_after(error.response.headers)
        seconds = _backoff(self._pauses_in_a_row) if wished is None else wished
        if now + seconds - self._last_success > PATIENCE:
            raise UserError(
                f"endpoint {self.address}: its rate limit lets nothing through (429, wait {seconds:.0f} s); repeat the "
                "command later, which goes on where it was, or lower endpoint.concurrency"
            ) from None
        self._paused_until = max(self._paused_until, now + seconds)
        if first and seconds >= LONG_PAUSE:
            self.say(f"endpoint {self.address}: its rate limit is reached, waiting {seconds:.0f} s")

    def _give_up(self, error: Exception) -> None:
        """This request, or all of them where nobody listens or nothing comes of any."""
        import httpx2

        self._given_up_in_a_row += 1
        unheard = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)
        if unheard or self._given_up_in_a_row >= GIVEN_UP_IN_A_ROW:
            raise UserError(
                f"endpoint {self.address}: no answer to {ATTEMPTS} attempts ({self._reason(error)}); see that it runs "
                "and that the address is right, and repeat the command, which goes on where it was"
            ) from None
        raise Refused(f"no answer to {ATTEMPTS} attempts ({self._reason(error)})") from None

    def _raise_if_hopeless(self, error: "openai.APIStatusError", body: dict[str, Any]) -> None:
        # Some refuse log-probabilities by "forbidden"; what stands without them tells the two apart.
        if "logprobs" in body:
            return
        remedy = {
            401: f"give the key as {KEY_VARIABLE}, or as api_key under [endpoint] in {SETTINGS_FILE}",
            402: "see what is left of the account",
            403: f"see what the key may do, {KEY_VARIABLE} or api_key under [endpoint] in {SETTINGS_FILE}",
            404: f"see the model's name, and url under [endpoint] in {SETTINGS_FILE}",
        }.get(error.status_code)
        if remedy:
            raise UserError(
                f"endpoint {self.address}, model {body['model']!r}: {self._reason(error)}; {remedy}"
            ) from None

    def _accepted(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body without the parameters that the endpoint has refused."""
        names = {name: REPLACED[name] if name in self._without else name for name in body}
        return {new: body[name] for name, new in names.items() if new}

    def _does_without(self, error: "openai.APIStatusError") -> bool:
        """Whether the endpoint refused a parameter that it can have otherwise, or not at all."""
        if error.code not in ("unsupported_parameter", "unsupported_value") or error.param not in REPLACED:
            return False
        if error.param not in self._without:
            self._without.add(error.param)
            self.say(f"endpoint {self.address}: takes no {error.param}; going on without")
        return True

    async def _pass_the_pause(self) -> None:
        while not self.failure and (left := self._paused_until - time.monotonic()) > 0:
            # Not all at once, or the next pause begins with the first of them.
            await self._wait(left + random.uniform(0, max(left, FIRST_WAIT)))

    async def _wait(self, seconds: float) -> None:
        """Sleep, unless the job fails meanwhile."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._failed.wait(), seconds)

    def _reason(self, error: Exception) -> str:
        """One line of what went wrong, without the key that some endpoints repeat."""
        import openai

        if isinstance(error, openai.APIStatusError):
            # Its own message leaves out what servers say elsewhere than OpenAI does.
            said = error.body.get("message") or error.body.get("detail") if isinstance(error.body, dict) else error.body
            text = " ".join(f"{error.status_code} {said or error.response.reason_phrase}".split())[:300]
        else:
            text = "malformed reply" if isinstance(error, ValidationError) else str(error.__cause__ or error)
        return text.replace(self.settings.api_key, "***") if self.settings.api_key else text


def _client(settings: EndpointSettings) -> "openai.AsyncOpenAI":
    import openai

    return openai.AsyncOpenAI(
        base_url=settings.url,
        # Never the OPENAI_API_KEY that it would take by itself: this may be any server.
        api_key=settings.api_key or "none",
        timeout=settings.timeout,
        # Ours are counted, and share their pauses.
        max_retries=0,
        # Half the work a request of the default transport.
        http_client=openai.DefaultAioHttpClient(timeout=settings.timeout),
    )


def _backoff(failures: int) -> float:
    """Seconds before the next attempt, twice as many each time, up to half of them random."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1)) * random.uniform(0.5, 1)
