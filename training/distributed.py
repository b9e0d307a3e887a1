"""Several processes, on one host or more: torchrun's agent starts them, and each goes through the same training."""

import logging
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING

from feedback.errors import UserError
from feedback.workspace import Workspace
from training.errors import Stopped, TrainingError
from training.recipe_base import Recipe
from training.reported import Reported
from training.runs import Run

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

PORT = 29500
# A host that waits for the others gives up after so many seconds.
PATIENCE = 900


@dataclass(frozen=True)
class Host:
    """One of the hosts that train together.

    Args:
        number: 0 for the one that keeps the run's files.
        rendezvous: HOST:PORT at which the others find number 0; None where it is alone.

    Raises:
        UserError: the rendezvous is no HOST:PORT.
    """

    number: int = 0
    rendezvous: str | None = None

    def __post_init__(self) -> None:
        if self.rendezvous is not None:
            host, _, port = self.rendezvous.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise UserError(f"--rendezvous {self.rendezvous}: give HOST:PORT, e.g. 10.0.0.1:{PORT}")

    @property
    def address(self) -> str:
        return self.rendezvous or f"{socket.gethostname()}:{PORT}"


ALONE = Host()


def wanted(recipe: Recipe) -> int:
    """How many processes the recipe asks for, on all hosts together."""
    return recipe.processes * recipe.nodes


def launch(workspace: Workspace, run: Run, host: Host, report: Callable[[str], None]) -> None:
    """Train with this host's processes, and return when all have ended well.

    Args:
        report: takes what they report.

    Raises:
        TrainingError: one has not, for a reason of its own or because it was killed.
        Stopped: this process was asked to end, and has ended them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    recipe = run.recipe
    alone = recipe.nodes == 1
    if not alone:
        _choose_interface(host.address)
    config = LaunchConfig(
        min_nodes=recipe.nodes,
        max_nodes=recipe.nodes,
        nproc_per_node=recipe.processes,
        run_id=run.id,
        rdzv_backend="c10d" if alone else "static",
        rdzv_endpoint="127.0.0.1:0" if alone else host.address,
        rdzv_configs={"timeout": PATIENCE} if alone else {"timeout": PATIENCE, "rank": host.number},
        # A run goes on from its checkpoint, by `resume`; a restarted process would begin at the start.
        max_restarts=0,
        local_addr="127.0.0.1" if alone else None,
    )
    # What torch's C++ side says of its connections is not for the person at the screen.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    arguments = ["-m", "training.worker", str(workspace.root), run.id]
    try:
        with _followed(run, report):
            elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        raise TrainingError(_reason(run, recipe, *error.get_first_failure())) from None
    except SignalException:
        raise Stopped from None


def join_commands(workspace: Workspace, run: Run, host: Host) -> list[str]:
    """What to type on each of the other hosts, which see the same workspace folder."""
    command = ["veritune", "--workspace", str(workspace.root), "train", "join", run.id, "--rendezvous", host.address]
    return [shlex.join([*command, "--host", str(number)]) for number in range(1, run.recipe.nodes)]


def require_processes(accelerator: "Accelerator", recipe: Recipe) -> None:
    """Make sure that as many processes train together as were asked for: launchers were seen to start one in silence.

    Raises:
        RuntimeError: they do not.
    """
    if accelerator.num_processes != wanted(recipe):
        raise RuntimeError(
            f"{wanted(recipe)} processes were asked for (processes={recipe.processes}, nodes={recipe.nodes}), "
            f"{accelerator.num_processes} train together"
        )


def is_first() -> bool:
    """Whether this process keeps the run's files; true where it is the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def anywhere(flag: bool) -> bool:
    """Whether the flag is up in any of the run's processes; all of them must ask."""
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        return flag
    raised = torch.tensor(int(flag), device="cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(raised, distributed.ReduceOp.MAX)
    return bool(raised.item())


@contextmanager
def _followed(run: Run, report: Callable[[str], None]) -> Iterator[None]:
    """Report what the run's first process logs for the person at the screen."""
    lines, ended = Reported(run.log, run.log.stat().st_size), Event()

    def follow() -> None:
        while not ended.wait(0.2):
            for line in lines.new():
                report(line)

    thread = Thread(target=follow, name="reported", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for line in lines.new():
            report(line)


def _choose_interface(address: str) -> None:
    """Have Gloo and NCCL use the network that leads to the other hosts; by a host's name they often find loopback."""
    import psutil

    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: this only asks the kernel for a route.
            probe.connect((host, int(port)))
        except OSError as error:
            raise UserError(f"--rendezvous {address}: no way there ({error.strerror or error})") from None
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == own for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def _reason(run: Run, recipe: Recipe, rank: int, failure: "ProcessFailure") -> str:
    """What the process that failed first says of it, or how it ended."""
    said = (failure.error_file_data or {}).get("message", "")
    text = " ".join(str(said.get("message") if isinstance(said, dict) else said).split())
    own, _, reason = text.partition("TrainingError: ")
    if reason and not own:
        return reason
    how = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"exit status {failure.exitcode}, {text[:200]}"
    return (
        f"process {rank} of {wanted(recipe)} ended ({how}), and the others with it; {run.log} has more; "
        f"`veritune train resume {run.id}` goes on from the last whole checkpoint"
    )
