"""A model behind an OpenAI-compatible endpoint, by a server that others keep."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from feedback.errors import UserError

Server = Literal["auto", "transformers", "vllm"]


def command(folder: Path, host: str, port: int, server: Server) -> list[str]:
    """The command that serves a model folder under the folder's own name, started in the folder above it.

    Args:
        server: auto: vLLM where it and a GPU are there, else transformers' own.

    Raises:
        UserError: vLLM is named and not installed.
    """
    if server == "auto":
        import torch

        server = "vllm" if find_spec("vllm") and torch.cuda.is_available() else "transformers"
    address = ["--host", host, "--port", str(port)]
    if server == "vllm":
        if not find_spec("vllm"):
            raise UserError("--server vllm: not installed; pip install 'veritune[vllm]', or use --server transformers")
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder.name, *address]
    return [sys.executable, "-m", "transformers.cli.transformers", "serve", folder.name, *address]
