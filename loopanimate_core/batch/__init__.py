"""A folder of pictures through one ComfyUI workflow, on one or several running servers.

`workflow` fits a workflow to a picture, `client` talks to a server, `state` remembers across crashes,
`runner` hands the pictures out. Standard library only, but for reading the pictures.
"""

from .client import ComfyClient, PromptRefusedError, ServerGoneError
from .pictures import PictureFile, list_pictures
from .runner import Batch, BatchEvent
from .state import BatchState, Record
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
