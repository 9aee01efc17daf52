"""The local engine: a recipe followed by several processes of one machine, pass by pass, resumably.

Between two comparisons every unit of the input goes its way alone; a comparison is an exchange on disk
(data/corpus/exchange.py). A piece of work leaves a file under its own name when it is done, and nothing depends on
who did it, so a run that was killed goes on with what is missing, and the result is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from t5x_like.data.corpus import exchange
from t5x_like.data.corpus.passes import Job, follow, label, say_again
from t5x_like.data.corpus.recipe import stages
from t5x_like.data.dedup.base import Round
from t5x_like.data.pages.base import Unit
from t5x_like.data.prepare_report import Progress
from t5x_like.data.token_writer import write_durably
from t5x_like.data.workers import Piece, Pool


class Local:
    """Follows a recipe on this machine.

    Args:
      job: what is done, and where.
      pool: does the work.
      progress: is told what is being done.
      budget: bytes of entries that a judge holds at once.
    """

    def __init__(self, job: Job, pool: Pool, progress: Progress, budget: int = exchange.RANGE_BYTES):
        self._job, self._pool, self._progress, self._budget = job, pool, progress, budget
        self._stages = stages(job.recipe)

    def run(self, units: Iterable[Unit]) -> int:
        """Takes the units through all passes; returns how many they are. The last pass's files are the result."""
        count = self._first_pass(units)
        for stage in range(1, len(self._stages)):
            job = self._job
            job.folder(stage).mkdir(parents=True, exist_ok=True)
            missing = [unit for unit in range(count) if not job.done(stage, unit)]
            if missing:
                self._compare(stage - 1, count)
                self._progress.stage(f"pass {stage + 1} of {len(self._stages)}", count)
                pieces = (
                    Piece(None if job.done(stage, unit) else (job, stage, unit, None), 1)
                    for unit in range(count)
                )
                self._pool.run(follow, pieces, self._progress)
            self._forget(stage - 1)
        return count

    def _first_pass(self, units: Iterable[Unit]) -> int:
        job = self._job
        if (known := job.units) is not None:
            return known
        job.folder(0).mkdir(parents=True, exist_ok=True)
        self._progress.stage(f"reading, pass 1 of {len(self._stages)}")
        pieces = (
            Piece(None if job.done(0, unit.number) else (job, 0, unit.number, unit), unit.consumed)
            for unit in units
        )
        count = self._pool.run(follow, pieces, self._progress)
        job.tell_units(count)
        return count

    def _compare(self, stage: int, units: int) -> None:
        """The rounds of the comparison behind a pass."""
        job, here = self._job, self._stages[stage]
        assert here.comparison is not None
        name = label(here.first + len(here.rules), here.comparison)
        rounds = here.comparison.rounds
        for number, round in enumerate(rounds):
            finished = job.verdicts(stage, number) / "finished"
            if finished.is_file():
                continue
            self._progress.stage(f"{name}, round {number + 1} of {len(rounds)}: gathering", units)
            if number:
                pieces = (
                    Piece(
                        None if job.entries(stage, number, unit).is_file() else (job, stage, number, unit),
                        1,
                    )
                    for unit in range(units)
                )
                self._pool.run(say_again, pieces, self._progress)
            self._judge(name, stage, number, round, units)
            write_durably(finished, b"")
            for unit in range(units):  # half of what the disk would have to hold
                job.entries(stage, number, unit).unlink(missing_ok=True)
            if number:
                for path in job.verdicts(stage, number - 1).glob("*.verdicts"):
                    path.unlink()

    def _judge(self, name: str, stage: int, number: int, round: Round, units: int) -> None:
        job = self._job
        paths = [job.entries(stage, number, unit) for unit in range(units)]
        folder = job.verdicts(stage, number)
        folder.mkdir(exist_ok=True)
        work = exchange.Exchange(
            round=round,
            entries=tuple(map(str, paths)),
            folder=str(folder),
            ranges=exchange.ranges_for(paths, self._budget),
            budget=self._budget,
        )
        self._progress.stage(f"{name}, round {number + 1}: comparing", work.ranges)
        pieces = (Piece(None if work.done(index) else (work, index), 1) for index in range(work.ranges))
        self._pool.run(exchange.judge, pieces, self._progress)

    def _forget(self, stage: int) -> None:
        """Removes what a pass left for the next one, which is done."""
        for path in self._job.folder(stage).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix in (".documents", ".entries"):
                path.unlink()
