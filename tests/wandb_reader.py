"""Reads the `.wandb` file of an offline run, which wandb 0.31 has no public reader for.

The file is a LevelDB log: a 7-byte file header, then 32 KiB blocks of chunks `[crc:4][length:2][kind:1][data]`, where
a record too long for its block is cut into a first, some middle and a last chunk. Records are protobuf messages.
"""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32768, 7
_PADDING, _FULL, _FIRST, _MIDDLE, _LAST = range(5)


@dataclass
class OfflineRun:
    """What one run has written."""

    id: str = ""
    project: str = ""
    group: str = ""
    name: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)  # what metrics of a pattern are drawn against
    artifacts: dict[str, tuple[str, list[str]]] = field(default_factory=dict)  # by name: type, files
    machine: set[str] = field(default_factory=set)  # names of the system metrics
    exit_code: int | None = None  # None while the run goes on


def read_runs(directory: Path, patience: float = 10.0) -> list[OfflineRun]:
    """All finished runs under `directory/wandb`, by name and start.

    wandb's own process may still be writing when `run.finish()` returns: waits until each run has its exit code.
    """
    deadline = time.monotonic() + patience
    while True:
        files = sorted(Path(directory).glob("wandb/offline-run-*/run-*.wandb"), key=lambda p: p.parent.name)
        runs = [read_run(path) for path in files]
        if all(run.exit_code is not None for run in runs) or time.monotonic() > deadline:
            return sorted(runs, key=lambda run: run.name)
        time.sleep(0.02)


def read_run(path: Path) -> OfflineRun:
    """The run in one file, as far as it is written."""
    from wandb.proto import wandb_internal_pb2 as pb

    run = OfflineRun()
    for data in _records(path.read_bytes()):
        record = pb.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            start = record.run
            run.id, run.project, run.group = start.run_id, start.project, start.run_group
            run.name, run.tags, run.job_type = start.display_name, list(start.tags), start.job_type
            run.config |= _values(start.config.update)
        elif kind == "config":
            run.config |= _values(record.config.update)
        elif kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "summary":
            run.summary |= _values(record.summary.update)
        elif kind == "metric" and record.metric.step_metric:
            run.axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "artifact":
            found = record.artifact
            run.artifacts[found.name] = found.type, [entry.path for entry in found.manifest.contents]
        elif kind == "stats":
            run.machine |= {item.key for item in record.stats.item}
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    position, parts = _HEADER, b""
    while position + _HEADER <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:  # too short for a chunk's header: the next block
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        data = content[position + _HEADER : position + _HEADER + length]
        if kind == _PADDING or len(data) < length:  # the tail that was never written
            return
        position += _HEADER + length
        parts = data if kind in (_FULL, _FIRST) else parts + data
        if kind in (_FULL, _LAST):
            yield parts
