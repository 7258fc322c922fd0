"""How the cost of a node grows with the size of the graph: `python -m bench.ir_scale`.

For chains, diamonds and transformer-like graphs of 1 000, 10 000 and 100 000 nodes: the time per node of building, of
one rewrite that hits every node (and one that hits the activations), of verifying, printing and parsing, each the
median of a few runs with the garbage collector off; and the networkx edge operations per node, which have no noise.
Ends with the time of `import qir` beside that of networkx and onnx alone. Exits with 1 when a node costs more than 1.5
times as much in the largest graph as in the smallest, or importing more than 1.2 times as much.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import networkx as nx
import numpy as np

from qir.graph import Graph, Node, Value
from qir.rewrite import rewrite
from qir.text.parsing import parse
from qir.types import TensorType
from qir.verify import verify
from qir.weights import Weight

SIZES = (1_000, 10_000, 100_000)
LIMIT = 1.5
IMPORT_LIMIT = 1.2
TYPE = TensorType("f32", ("N", 8, 8))


def chain(size: int) -> Graph:
    """One node after the other."""
    graph = Graph("chain")
    value = graph.input("x", TYPE)
    for number in range(size):
        value = graph.add("Relu", [value], module=f"layer{number}").result
    graph.outputs = [value]
    return graph


def diamonds(size: int) -> Graph:
    """x + f(x), again and again: the paths double with every step."""
    graph = Graph("diamonds")
    value = graph.input("x", TYPE)
    for _ in range(size // 2):
        value = graph.add("Add", [value, graph.add("Relu", [value]).result]).result
    graph.outputs = [value]
    return graph


def transformer(size: int) -> Graph:
    """Blocks of attention and a feed-forward part with weights of their own, and one scale that all blocks share."""
    graph = Graph("transformer")
    data = np.zeros((8, 8), np.float32)
    scale = graph.weight(Weight(np.ones(8, np.float32), ("scale",)))
    value = graph.input("x", TYPE)
    for block in range(size // 14):
        weights = [graph.weight(Weight(data, (f"block{block}.{name}",))) for name in "qkvoud"]
        normed = graph.add("Mul", [value, scale]).result
        q, k, v = (graph.add("MatMul", [normed, weight]).result for weight in weights[:3])
        turned = graph.add("Transpose", [k], {"perm": (0, 2, 1)}).result
        scores = graph.add("Softmax", graph.add("MatMul", [q, turned]).results).result
        mixed = graph.add("MatMul", [graph.add("MatMul", [scores, v]).result, weights[3]]).result
        value = graph.add("Add", [value, mixed]).result
        hidden = graph.add("Relu", graph.add("MatMul", [value, weights[4]]).results).result
        value = graph.add("Add", [value, graph.add("MatMul", [hidden, weights[5]]).result]).result
    graph.outputs = [value]
    return graph


KINDS: dict[str, Callable[[int], Graph]] = {"chain": chain, "diamonds": diamonds, "transformer": transformer}
TWINS = {"Relu": "LeakyRelu", "Softmax": "LogSoftmax", "Add": "Sub", "Mul": "Div"}


def twin(node: Node, graph: Graph) -> Value:
    """The node anew, as its twin where it has one."""
    done = {"module": "seen", "like": node}
    return graph.add(TWINS.get(node.op, node.op), node.operands, node.attrs, **done).result


def twin_once(node: Node, graph: Graph) -> Value | None:
    """The twin of a node that is not one yet."""
    return None if node.module == "seen" else twin(node, graph)


def rewrite_everything(graph: Graph) -> None:
    """Put every node anew."""
    every = {node.op for node in graph.nodes()}
    done = rewrite(graph, dict.fromkeys([*every, *TWINS.values()], twin_once)).done
    assert len(done) == len(graph.nodes())


def rewrite_activations(graph: Graph) -> None:
    """Put LeakyRelu for every Relu."""
    rewrite(graph, {"Relu": twin})


class Counting(nx.MultiDiGraph):
    """A graph that counts the edges written and removed."""

    edges_touched = 0

    def add_edge(self, *args: Any, **rest: Any) -> Any:
        self.edges_touched += 1
        return super().add_edge(*args, **rest)

    def remove_edge(self, *args: Any, **rest: Any) -> Any:
        self.edges_touched += 1
        return super().remove_edge(*args, **rest)

    def remove_nodes_from(self, nodes: Any) -> None:
        nodes = list(nodes)
        self.edges_touched += sum(self.degree(node) for node in nodes if node in self)
        super().remove_nodes_from(nodes)


def edge_operations(build: Callable[[int], Graph], size: int) -> float:
    """Edges written and removed per node while a copy is rewritten everywhere."""
    graph = build(size)
    counting = Counting(graph.nx)
    graph.nx = counting
    before = counting.edges_touched
    rewrite_everything(graph)
    return (counting.edges_touched - before) / len(graph.nodes())


def timed(act: Callable[[], Any]) -> float:
    """Seconds of processor time, which other programs on the machine do not lengthen."""
    gc.collect()
    gc.disable()
    started = time.process_time()
    act()
    taken = time.process_time() - started
    gc.enable()
    return taken


def measure(build: Callable[[int], Graph], size: int) -> dict[str, float]:
    """Seconds per node of each step, once."""
    graph = build(size)
    text = str(graph)
    steps: Mapping[str, Callable[[], Any]] = {
        "build": partial(build, size),
        "rewrite all": partial(rewrite_everything, graph.copy()),
        "rewrite some": partial(rewrite_activations, graph.copy()),
        "verify": partial(verify, graph),
        "print": partial(str, graph),
        "parse": partial(parse, text),
    }
    return {name: timed(act) / size for name, act in steps.items()}


def medians(build: Callable[[int], Graph], runs: int) -> list[dict[str, float]]:
    """For each size the median cost per node of every step. The sizes take turns, small graphs more than one."""
    taken: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    for _ in range(runs):
        for size in SIZES:
            taken[size] += [measure(build, size) for _ in range(1 if size == SIZES[-1] else 4)]
    return [{step: statistics.median(run[step] for run in taken[size]) for step in taken[size][0]} for size in SIZES]


def import_times(runs: int) -> tuple[float, float]:
    """Median seconds of `import qir`, and of what it rests on alone; the runs alternate, all with bytecode at hand."""

    def once(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        once("import qir")
        pairs = [(once("import qir"), once("import networkx, onnx")) for _ in range(runs)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of the largest graphs; smaller ones get more")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    failed = False
    print(f"{'graph':12} {'step':13} " + " ".join(f"{f'{size:,} nodes':>14}" for size in SIZES) + "     ratio")
    for kind in given.kinds:
        build = KINDS[kind]
        build(SIZES[0])
        costs = medians(build, given.runs)
        for step in costs[0]:
            ratio = costs[-1][step] / costs[0][step]
            failed |= ratio > LIMIT
            shown = " ".join(f"{cost[step] * 1e6:11.1f} µs" for cost in costs)
            print(f"{kind:12} {step:13} {shown} {ratio:9.2f}{' !' * (ratio > LIMIT)}")
        edges = [edge_operations(build, size) for size in SIZES]
        failed |= edges[-1] > edges[0] * 1.01
        print(
            f"{kind:12} {'edge writes':13} " + " ".join(f"{e:14.2f}" for e in edges) + f" {edges[-1] / edges[0]:9.2f}"
        )
    ours, theirs = import_times(given.runs * 5)
    failed |= ours > theirs * IMPORT_LIMIT
    print(f"import qir {ours * 1e3:.0f} ms, networkx and onnx alone {theirs * 1e3:.0f} ms, ratio {ours / theirs:.2f}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
