"""The bags of a folder on Ray: a bag per task, and a model per actor, which has a GPU if there is one.

All machines have to see the bags, the outputs and a model folder under the same paths.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray  # pyright: ignore[reportMissingImports]  # of the extra engine-ray

from instructsam.core import exit_codes
from instructsam.core.errors import InstructSAMError
from instructsam.core.ray_session import find_gpus, start_ray
from instructsam_ros.bag.annotate import CommandModel
from instructsam_ros.bag.folders.one_bag import OF_ALL, Annotated, annotate_one


def annotate_on_ray(args: argparse.Namespace, tasks: Sequence[argparse.Namespace]) -> Iterator[Annotated]:
    """Annotate bags; yield each as it is done, or has failed.

    A bag whose process dies has failed, and another process takes its place.

    Args:
        args: Options of the command.
        tasks: The options of each bag.

    Raises:
        InstructSAMError: There are too few GPUs; an error that concerns all bags.
    """
    start_ray()
    gpus = find_gpus(args.ray_gpus or 0.0, '--ray-gpus')
    per_actor = min(1.0, gpus) if args.ray_gpus is None else args.ray_gpus
    fitting = int(gpus / per_actor) if per_actor else None
    count = args.ray_actors or fitting or 1
    if fitting is not None and count > fitting:
        raise InstructSAMError(
            f'--ray-actors is {count}, and on the {gpus:g} GPUs that Ray has fit {fitting} processes with '
            f'{per_actor:g} each: ask for fewer, or give each a smaller part with --ray-gpus'
        )
    count = min(count, len(tasks))
    threads = os.environ.get('OMP_NUM_THREADS') or str(max(1, (os.cpu_count() or 1) // count))
    make_actor = ray.remote(num_gpus=per_actor)(BagActor).remote
    waiting, idle = list(reversed(tasks)), [make_actor(args, threads) for _ in range(count)]
    running: dict[Any, tuple[Any, argparse.Namespace]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                actor, task = idle.pop(), waiting.pop()
                running[actor.annotate.remote(task)] = actor, task
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            actor, task = running.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayActorError:
                actor = make_actor(args, threads)
                reason = 'its process died, perhaps for lack of memory'
                result = Annotated(Path(task.output).name, exit_codes.FAILED, error=reason)
            idle.append(actor)
            if not isinstance(result, Annotated):
                raise result
            yield result
    finally:
        for actor in (*idle, *(actor for actor, _ in running.values())):
            ray.kill(actor)


class BagActor:
    """A process of Ray that annotates bags with a model of its own.

    Args:
        args: Options of the command.
        threads: CPU threads of the model. Ray would give it one.
    """

    def __init__(self, args: argparse.Namespace, threads: str) -> None:
        os.environ['OMP_NUM_THREADS'] = threads
        self._args = args
        self._model: CommandModel | None = None

    def annotate(self, task: argparse.Namespace) -> Annotated | Exception:
        """Return the result of a bag, with what the command printed; or an error that concerns all bags."""
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            try:
                self._model = self._model or CommandModel(self._args)
                return replace(annotate_one(task, self._model), printed=printed.getvalue())
            except OF_ALL as error:
                return error
