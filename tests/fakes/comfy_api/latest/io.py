"""A fake of `comfy_api.latest.io` from 0.3.48 to 0.3.64: its names, arguments, checks and node info.

As in ComfyUI, unknown arguments are rejected, ids must be unique among inputs and outputs
together, and a node runs on a clone of its class that cannot be written to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar


class FolderType(str, Enum):
    input = "input"
    output = "output"
    temp = "temp"


class NumberDisplay(str, Enum):
    number = "number"
    slider = "slider"


class Hidden(str, Enum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"


@dataclass(frozen=True)
class HiddenHolder:
    unique_id: str | None = None
    prompt: Any = None
    extra_pnginfo: Any = None
    dynprompt: Any = None


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


class Input:
    io_type: ClassVar[str] = ""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
    ) -> None:
        self.id, self.display_name, self.optional = id, display_name, optional
        self.tooltip, self.lazy, self.extra_dict = tooltip, lazy, extra_dict or {}

    def as_dict(self) -> dict[str, Any]:
        own = {"display_name": self.display_name, "tooltip": self.tooltip, "lazy": self.lazy}
        return _present(**own, **self.extra_dict)


class WidgetInput(Input):
    """An input with a widget. `OWN` maps the arguments of this type to the names that the page uses."""

    OWN: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        id: str,
        *,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        socketless: bool | None = None,
        **own: Any,
    ) -> None:
        super().__init__(id, display_name, optional, tooltip, lazy)
        if unknown := own.keys() - self.OWN.keys():
            raise TypeError(f"{type(self).__qualname__} got unexpected arguments {unknown}")
        self.default, self.socketless, self.own = default, socketless, own

    def as_dict(self) -> dict[str, Any]:
        own = {self.OWN[name]: value for name, value in self.own.items()}
        common = _present(default=self.default, socketless=self.socketless)
        return super().as_dict() | common | _present(**own)


class Output:
    io_type: ClassVar[str] = ""

    def __init__(
        self,
        id: str | None = None,
        display_name: str | None = None,
        tooltip: str | None = None,
        is_output_list: bool = False,
    ) -> None:
        self.id, self.display_name = id, display_name
        self.tooltip, self.is_output_list = tooltip, is_output_list


class ComfyTypeIO:
    """A type of link: `X.Input(...)` and `X.Output(...)`."""

    Input: type[Input]
    Output: type[Output]


class _Widget:
    Input: type[WidgetInput]
    Output: type[Output]


def Custom(io_type: str) -> type[ComfyTypeIO]:
    kind = {"io_type": io_type}
    ends = {"Input": type("Input", (Input,), kind), "Output": type("Output", (Output,), kind)}
    return type("CustomComfyType", (ComfyTypeIO,), ends)


def _widget(io_type: str, **own: str) -> type[_Widget]:
    kind = {"io_type": io_type}
    field = type("Input", (WidgetInput,), kind | {"OWN": own})
    return type(io_type, (_Widget,), {"Input": field, "Output": type("Output", (Output,), kind)})


_NUMBER = {
    "min": "min",
    "max": "max",
    "step": "step",
    "display_mode": "display",
    "force_input": "forceInput",
}
Int = _widget("INT", **_NUMBER, control_after_generate="control_after_generate")
Float = _widget("FLOAT", **_NUMBER, round="round")
Boolean = _widget("BOOLEAN", label_on="label_on", label_off="label_off", force_input="forceInput")
String = _widget(
    "STRING",
    multiline="multiline",
    placeholder="placeholder",
    dynamic_prompts="dynamicPrompts",
    force_input="forceInput",
)
Combo = _widget(
    "COMBO",
    options="options",
    control_after_generate="control_after_generate",
    upload="upload",
    image_folder="image_folder",
    remote="remote",
)
Image = Custom("IMAGE")
Mask = Custom("MASK")
Audio = Custom("AUDIO")
Latent = Custom("LATENT")
Conditioning = Custom("CONDITIONING")
Clip = Custom("CLIP")
ClipVision = Custom("CLIP_VISION")
Vae = Custom("VAE")
Model = Custom("MODEL")


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Any] | None = None
    outputs: list[Output] | None = None
    hidden: list[Hidden] | None = None
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def validate(self) -> None:
        ids = [entry.id for entry in [*(self.inputs or []), *(self.outputs or [])]]
        if repeated := {entry for entry in ids if ids.count(entry) > 1}:
            raise ValueError(f"ids must be unique among inputs and outputs, but {repeated} are not")

    def finalize(self) -> None:
        if self.is_output_node:
            self.hidden = list(
                dict.fromkeys([*(self.hidden or []), Hidden.prompt, Hidden.extra_pnginfo])
            )
        for index, output in enumerate(self.outputs or []):
            output.id = output.id or f"_{index}_{output.io_type}_"


class _Clone(type):
    """The metaclass of a running node: setting a class attribute fails, as in ComfyUI."""

    def __setattr__(cls, name: str, _value: Any) -> None:
        raise AttributeError(f"cannot set {name!r} on a node's class")


class ComfyNode:
    hidden: ClassVar[HiddenHolder] = HiddenHolder()

    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def execute(cls, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        schema = cls.define_schema()
        schema.finalize()
        schema.validate()
        return schema

    @classmethod
    def PREPARE_CLASS_CLONE(cls, hidden_inputs: Mapping[Hidden, Any] | None) -> type[ComfyNode]:
        named = {hidden.name: value for hidden, value in (hidden_inputs or {}).items()}
        return _Clone(cls.__name__, (cls,), {"hidden": HiddenHolder(**named)})


class NodeOutput:
    def __init__(
        self,
        *args: Any,
        ui: Any = None,
        expand: dict[str, Any] | None = None,
        block_execution: str | None = None,
    ) -> None:
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        return self.args or None

    def __getitem__(self, index: int) -> Any:
        return self.args[index]
