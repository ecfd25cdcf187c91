"""Executors of batches: this process, tasks of a Ray cluster, or jobs of Slurm.

An executor is a function from an iterable of batches to a generator of events, in any order, which
ends when all batches have finished. Closing the generator cancels unfinished batches. The calling
process stores the cells, not the workers, so that a batch that was restarted is stored once.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxstyle.engine.iterate import Iterate
from jaxstyle.engine.loop import iterates
from jaxstyle.engine.results import Result, append_iterate, collect_iterates, finish
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import reason
from jaxstyle.nn.network import Network
from jaxstyle.sweep.batches import Batch, batch_problem, check_memory
from jaxstyle.sweep.cell import Cell
from jaxstyle.weights import load_network, save_network

# Number of restarts of a batch whose worker or node died.
RETRIES = 3
POLL_SECONDS = 1.0


class Step(NamedTuple):
    """An iterate of a batch."""

    batch: Batch
    iterate: Iterate


class Waiting(NamedTuple):
    """No batch has finished since the last event."""

    running: tuple[Batch, ...]
    """Unfinished batches; some may be queued."""


class Finished(NamedTuple):
    """A finished batch."""

    batch: Batch
    results: list[Result]
    """One result per position of the batch, including positions without a cell."""


Event = Step | Waiting | Finished
Executor = Callable[[Iterable[Batch]], Iterator[Event]]


def local(devices: Sequence[jax.Device]) -> Executor:
    """Return an executor that runs batches in this process, each sharded over `devices`."""

    def run(batches: Iterable[Batch]) -> Iterator[Event]:
        for batch in batches:
            collected: list[Iterate] = []
            with _memory_errors(len(batch.places)):
                problem = batch_problem(batch.places, batch.group.own_targets, devices)
                for iterate in iterates(problem):
                    append_iterate(collected, iterate._replace(carry=None))
                    yield Step(batch, iterate)
                results = finish(problem, collected)
            yield Finished(batch, results)

    return run


def on_ray(options: Mapping[str, Any]) -> Executor:
    """Return an executor that runs each batch as a task of a Ray cluster.

    The cluster is that of `RAY_ADDRESS`, or a local one.

    Args:
      options: options of `ray.remote`, such as `num_gpus`, `num_cpus` and `max_retries`. By default
        a task requests a GPU if the cluster has any, and is restarted when its worker dies.

    Raises:
      JaxstyleError: Ray is not installed, or no cluster can be reached.
    """
    ray = _imported("ray")

    def run(batches: Iterable[Batch]) -> Iterator[Event]:
        ours = not ray.is_initialized()
        if ours:
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise _unreachable("ray", error) from None
        pending: dict[Any, Batch] = {}
        try:
            gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
            resources = {"num_cpus": 1, "num_gpus": gpus, "max_retries": RETRIES, **options}
            try:
                task = ray.remote(**resources)(outcome_of)
            except (TypeError, ValueError) as error:
                raise JaxstyleError(f"--executor-option: {error}; see ray.remote") from None
            stored: dict[Any, Any] = {}
            for batch in batches:
                network, places = _apart(batch)
                if network.key not in stored:
                    stored[network.key] = ray.put(network)
                arguments = stored[network.key], places, batch.group.own_targets
                pending[task.remote(*arguments)] = batch
            while pending:
                ready, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
                for reference in ready:
                    try:
                        outcome = ray.get(reference)
                    except ray.exceptions.RayTaskError:
                        raise  # A bug, with the worker's traceback.
                    except ray.exceptions.RayError as error:
                        raise _died("ray", error) from None
                    yield Finished(pending.pop(reference), _results(outcome))
                if not ready:
                    yield Waiting(tuple(pending.values()))
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()

    return run


def on_slurm(folder: Path, options: Mapping[str, Any]) -> Executor:
    """Return an executor that runs each batch as a job of Slurm, with submitit.

    A preempted job is requeued, and a job whose node died is submitted again.

    Args:
      folder: folder of the jobs' arguments, results and logs, shared by all nodes.
      options: options of submitit's `update_parameters`, such as `slurm_partition`, `gpus_per_node`
        and `timeout_min`; `cluster="local"` runs processes of this machine instead.

    Raises:
      JaxstyleError: submitit is not installed, there is no Slurm, or an option is unknown.
    """
    submitit = _imported("submitit", extra="slurm")
    # An absolute path, for workers on other machines.
    folder = folder.resolve()

    def run(batches: Iterable[Batch]) -> Iterator[Event]:
        parameters = {"name": "jaxstyle", "cluster": "slurm", **options}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            executor = submitit.AutoExecutor(folder=folder, cluster=parameters.pop("cluster"))
            executor.update_parameters(**parameters)
        except (RuntimeError, ValueError, NameError, TypeError) as error:
            raise _unreachable("slurm", error) from None
        pending: dict[Any, tuple[Batch, int]] = {}

        def submit(batch: Batch, deaths: int) -> None:
            network, places = _apart(batch)
            weights = folder / f"{network.digest}.safetensors"
            if not weights.exists():
                save_network(network, weights)
            job = executor.submit(_Requeued(), weights, places, batch.group.own_targets)
            pending[job] = batch, deaths

        try:
            for batch in batches:
                submit(batch, 0)
            while pending:
                ready = [job for job in pending if job.done()]
                for job in ready:
                    batch, deaths = pending.pop(job)
                    try:
                        outcome = job.result()
                    except submitit.core.utils.FailedJobError:
                        raise  # A bug, with the job's traceback.
                    except submitit.core.utils.UncompletedJobError as error:
                        if deaths == RETRIES:
                            raise _died("slurm", error) from None
                        submit(batch, deaths + 1)
                        continue
                    yield Finished(batch, _results(outcome))
                if not ready:
                    yield Waiting(tuple(batch for batch, _ in pending.values()))
                    time.sleep(POLL_SECONDS)
        finally:
            for job in pending:
                with contextlib.suppress(Exception):
                    job.cancel(check=False)

    return run


def executor_option(text: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`; the value is read as JSON if it is valid JSON.

    Raises:
      JaxstyleError: the text is not of this form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise JaxstyleError(
            f"--executor-option: {text!r} is not KEY=VALUE; give for instance num_gpus=1 for ray "
            "or timeout_min=60 for slurm"
        )
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


Outcome = list[Result] | JaxstyleError
"""A `JaxstyleError` is returned like a result, as Ray and submitit wrap exceptions in their own."""


def outcome_of(
    network: Network | Path, places: tuple[Cell | None, ...], own_targets: bool
) -> Outcome:
    """Run the cells of a batch on the first device of this process.

    Args:
      network: weights, or a file of weights.
      places: cells without their network (`_apart`).
      own_targets: as in `batch_problem`.
    """
    try:
        if isinstance(network, Path):
            network = load_network(str(network))
        whole = tuple(cell and dataclasses.replace(cell, network=network) for cell in places)
        _check_room(whole)
        with _memory_errors(len(places)):
            problem = batch_problem(whole, own_targets, jax.local_devices()[:1])
            return finish(problem, collect_iterates(iterates(problem)))
    except JaxstyleError as error:
        return error


def _check_room(places: tuple[Cell | None, ...]) -> None:
    """Raise a `JaxstyleError` if a batch does not fit into the memory of this machine."""
    first = next(cell for cell in places if cell)
    try:
        check_memory(first, elements=len(places))
    except JaxstyleError:
        if len(places) == 1:
            raise
        raise _too_many(len(places)) from None


def _too_many(elements: int) -> JaxstyleError:
    return JaxstyleError(
        f"--lanes: {elements} cells at a time do not fit in memory; "
        + (f"give --lanes {elements // 2}" if elements > 1 else "give a smaller size")
    )


def _apart(batch: Batch) -> tuple[Network, tuple[Cell | None, ...]]:
    """Return a batch's network, and its cells without it: workers get the network only once."""
    networks = [cell.network for cell in batch.places if cell]
    bare: Any = None
    return networks[0], tuple(
        cell and dataclasses.replace(cell, network=bare) for cell in batch.places
    )


def _results(outcome: Outcome) -> list[Result]:
    if isinstance(outcome, JaxstyleError):
        raise outcome
    return outcome


class _Requeued:
    """`outcome_of` for submitit, which calls `checkpoint` after a preemption."""

    def __call__(self, *arguments: Any) -> Outcome:
        return outcome_of(*arguments)

    def checkpoint(self, *arguments: Any) -> Any:
        return import_module("submitit").helpers.DelayedSubmission(self, *arguments)


@contextlib.contextmanager
def _memory_errors(elements: int) -> Iterator[None]:
    """Raise a `JaxstyleError` if a batch of this size exceeds the memory in the block."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _too_many(elements) from None


def _imported(name: str, *, extra: str = "") -> Any:
    try:
        return import_module(name)
    except ImportError:
        extra = extra or name
        raise JaxstyleError(
            f"--executor: {extra} needs a package that is not here; install jaxstyle[{extra}]"
        ) from None


def _unreachable(executor: str, error: Exception) -> JaxstyleError:
    return JaxstyleError(f"--executor: {executor} cannot be used: {reason(error)[:300]}")


def _died(executor: str, error: Exception) -> JaxstyleError:
    return JaxstyleError(
        f"--executor: {executor} lost a batch {RETRIES + 1} times ({reason(error)[:300]}); cells "
        "that are done are kept; run the same command to resume"
    )
