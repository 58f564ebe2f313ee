"""Every picture of a folder through one ComfyUI workflow, on one or more running servers.

`workflow` adapts a workflow to a picture, `client` talks to a server (`transport` limits, `answers` reads), `downloads`
and `bodies` bring and check the loops, `state` keeps the progress across crashes, and `runner` distributes the pictures. Only reading pictures needs more than the standard library.
"""

from .client import ComfyClient, PromptRefusedError
from .pictures import PictureFile, list_pictures
from .runner import Batch, BatchEvent
from .state import BatchState, Record
from .transport import ServerGoneError
from .workflow import BatchWorkflow, read_workflow

__all__ = [
    "Batch",
    "BatchEvent",
    "BatchState",
    "BatchWorkflow",
    "ComfyClient",
    "PictureFile",
    "PromptRefusedError",
    "Record",
    "ServerGoneError",
    "list_pictures",
    "read_workflow",
]
