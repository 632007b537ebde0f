"""`inferd probe`: what inferd sees of this machine, and what that means for INT8."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from inferd_agent.cli.output import human_bytes, json_option, one_line, print_json, print_labelled

Facts = Mapping[str, Any]


@click.command("probe")
@click.option(
    "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), default="/", show_default=True,
    metavar="DIR", help="Read /proc, /sys and /dev below this folder, such as a recorded machine's.",
)  # fmt: skip
@json_option
def command(root: Path, as_json: bool) -> None:
    """Show this machine as inferd sees it: CPU, INT8 instructions, cores allowed, memory, devices, engines."""
    from inferd_runtime import open_engines, probe

    machine = probe(root)
    engines, missing = open_engines()
    found = {
        **machine.to_dict(),
        "engines": [
            {"name": name, "version": engine.version, "devices": list(engine.devices())}
            for name, engine in engines.items()
        ],
        "missing_engines": missing,
    }
    if as_json:
        print_json(found)
    else:
        show(found)


def show(m: Facts) -> None:
    """The machine as labelled lines."""
    cpu, memory = m["cpu"], m["memory"]
    cores = f"{cpu['physical_cores']} cores, {cpu['logical_cores']} threads"
    free = f"{human_bytes(memory['usable_bytes'])} usable, {human_bytes(memory['available_bytes'])} free now"
    print_labelled(
        [
            ("board", m["board"]),
            ("cpu", f"{cpu['model'] or 'unknown'} ({cpu['arch']}), {cores}"),
            ("int8", ", ".join(cpu["flags"]) or "no INT8 instructions known here; INT8 may not be faster than float"),
            ("cores", f"{m['usable_cores']} to use: {m['core_reason']}"),
            ("memory", free + limit(memory)),
            ("caches", ", ".join(cache(c) for c in m["caches"])),
            *((d["kind"], device(d)) for d in m["devices"]),
            *(("engine", f"{e['name']} {e['version']} on {', '.join(e['devices'])}") for e in m["engines"]),
            *(("no engine", f"{name}: {one_line(reason)}") for name, reason in m["missing_engines"].items()),
            ("kernel", m["kernel"]),
            ("digest", m["digest"]),
        ]
    )


def limit(memory: Facts) -> str:
    """Where the memory limit comes from, if one is set."""
    return f" ({memory['limit']['source']} {memory['limit']['cgroup']})" if memory["limit"] else ""


def cache(c: Facts) -> str:
    """`L1d 2 x 48.0 KiB`."""
    split = {"data": "d", "instruction": "i"}.get(c["kind"].lower(), "")
    return f"L{c['level']}{split} {c['count']} x {human_bytes(c['size_bytes'])}"


def device(d: Facts) -> str:
    """One GPU or NPU, and whether we may use it."""
    driver = f"driver {d['driver']} {d['driver_version']}".rstrip() if d["driver"] else "no driver"
    memory = f", {human_bytes(d['memory_bytes'])}" if d["memory_bytes"] else ""
    return f"{d['vendor']} {d['name']}{memory}, {driver}, {'usable' if d['may_open'] else 'not usable: ' + d['reason']}"
