"""The base class of V3 nodes."""


class ComfyNode: ...
