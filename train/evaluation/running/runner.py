"""Lets a model answer a benchmark into a run's folder, alone or as one of torchrun's processes, also a second time.

Process R of W takes every W-th scene, from the R-th on: each is asked once, whoever asks it, and what is asked does not
depend on what was there before. What is asked at once is one image on one thread (or GPU), so that the figures do not
depend on how many processes there are.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

from instructsam.train.evaluation.running.prompting import ask
from instructsam.train.evaluation.running.run_folder import Writer, read_run

WAIT = timedelta(days=7)  # for the slowest process


@dataclass(frozen=True)
class Process:
    """Which of torchrun's processes this is."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls):
        named = (('RANK', 0), ('WORLD_SIZE', 1), ('LOCAL_RANK', 0))
        return cls(*(int(os.environ.get(name, default)) for name, default in named))

    def wait_for_all(self):
        """Returns when every process has come here."""
        if self.world == 1:
            return
        import torch.distributed as dist

        dist.init_process_group('gloo', timeout=WAIT)
        dist.barrier()
        dist.destroy_process_group()


def answer(load_engine, source, asking, folder, header, process=Process(), track=lambda outcomes, scenes: outcomes):
    """Asks what is not answered in `folder` yet, and returns once all processes are done.

    load_engine: called where there is something to ask. track: gets the outcomes as they come and the number of scenes,
    and yields them on, e.g. to show how far it is. Failed samples of an earlier start are tried again. Raises RunError.
    """
    with Writer(folder, process.rank, header) as writer:
        done = _done(read_run(folder, header).outcomes)
        mine = range(process.rank, len(source), process.world)
        waiting = [position for position in mine if not _is_complete(done.get(position))]
        if waiting:
            engine = asking.engine(load_engine())
            for outcome in track(_outcomes(engine, source, waiting, asking, done), len(waiting)):
                writer.add(outcome)
    process.wait_for_all()


def _done(outcomes):
    """Position -> (numbers of the queries that are answered, of how many)."""
    done = {}
    for outcome in outcomes:
        position, number, of = outcome.order
        if not outcome.error:
            done.setdefault(position, (set(), of))[0].add(number)
    return done


def _is_complete(entry):
    return entry is not None and len(entry[0]) == entry[1]


def _outcomes(engine, source, positions, asking, done):
    for position, scene in source.open(positions):
        yield from ask(engine, position, scene, asking, skip=done.get(position, (frozenset(), 0))[0])
