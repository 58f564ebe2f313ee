"""A workflow of the page without its subgraphs: every subgraph node replaced by the nodes inside, as the page does
before it sends a prompt."""

from __future__ import annotations

import copy
from typing import Any

Node = dict[str, Any]
Edge = tuple[Any, int, Any, int, str]  # from, its output, to, its input, type

INPUTS, OUTPUTS = -10, -20
"""The ids that stand for the ends of a subgraph in its own links."""


def definitions(graph: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The subgraphs of a workflow by the type that their nodes have."""
    return {each["id"]: each for each in graph.get("definitions", {}).get("subgraphs", [])}


def flat(graph: dict[str, Any]) -> dict[str, Any]:
    """A copy without subgraphs; node 5 inside of node 12 gets the id "12:5"."""
    known = definitions(graph)
    if not known:
        return graph
    nodes: list[Node] = []
    edges: list[Edge] = [tuple(link[1:]) for link in graph["links"]]
    for node in graph["nodes"]:
        if node["type"] in known:
            inside, edges = _opened(node, known[node["type"]], edges)
            nodes += inside
        else:
            nodes.append(copy.deepcopy(node))
    return {**graph, "nodes": nodes, "links": _connect(nodes, edges), "definitions": {}}


def _opened(
    node: Node, subgraph: dict[str, Any], edges: list[Edge]
) -> tuple[list[Node], list[Edge]]:
    """The nodes inside of a subgraph node, and all edges with its own replaced."""
    inside = [{**copy.deepcopy(n), "id": f"{node['id']}:{n['id']}"} for n in subgraph["nodes"]]
    into = {(e[3]): e[:2] for e in edges if e[2] == node["id"]}  # its input to what feeds it
    out_of: dict[int, tuple[Any, int]] = {}
    opened = [e for e in edges if node["id"] not in (e[0], e[2])]
    for link in subgraph["links"]:
        source = (f"{node['id']}:{link['origin_id']}", link["origin_slot"])
        if link["origin_id"] == INPUTS:
            if link["origin_slot"] not in into:
                continue  # a setting of the subgraph node, or an optional input
            source = into[link["origin_slot"]]
        if link["target_id"] == OUTPUTS:
            out_of[link["target_slot"]] = source
        else:
            target = f"{node['id']}:{link['target_id']}"
            opened.append((source[0], source[1], target, link["target_slot"], link["type"]))
    for source, slot, target, target_slot, kind in edges:
        if source == node["id"]:
            opened.append((*out_of[slot], target, target_slot, kind))
    return inside, opened


def _connect(nodes: list[Node], edges: list[Edge]) -> list[list[Any]]:
    """The links of a workflow, entered into its nodes."""
    by_id = {node["id"]: node for node in nodes}
    for node in nodes:
        for entry in node.get("inputs", []):
            entry["link"] = None
        for output in node.get("outputs", []):
            output["links"] = []
    links = []
    for number, (source, output, target, slot, kind) in enumerate(edges, 1):
        by_id[source]["outputs"][output]["links"].append(number)
        by_id[target]["inputs"][slot]["link"] = number
        links.append([number, source, output, target, slot, kind])
    return links
