"""`inferd models`: what the daemon serves, on which engine and why, and whether it is INT8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from inferd_agent.cli.output import (
    client_options,
    describe_tensors,
    human_bytes,
    human_us,
    json_option,
    one_line,
    print_heading,
    print_json,
    print_labelled,
    print_table,
)

Description = Mapping[str, Any]
COLUMNS = ("model", "version", "state", "quantised", "engine", "a row", "inputs")


@click.command("models")
@click.argument("model", required=False)
@json_option
@client_options
def command(model: str | None, as_json: bool, url: str | None, token: str | None, ca: str | None) -> None:
    """Show all models, or everything about MODEL.

    A model that failed shows its reason; an engine that was passed over shows its own words. What was measured for a
    model: inferd explain MODEL.

    \b
    inferd models
    inferd models digits
    inferd models --json | jq -r '.[] | select(.state == "FAILED") | .name'
    """
    from inferd import Client

    with Client(url, token=token, ca=ca) as client:
        found = client.descriptions(model)
    if as_json:
        print_json(found)
    elif model:
        for description in found:
            show_one(description)
    elif found:
        show_all(found)
    else:
        click.echo("No models yet. Copy one to <name>.onnx or <name>/1/model.onnx in the daemon's models folder; it is")
        click.echo("served as it lands. Which folder: inferd config (models.path).")


def show_all(found: Sequence[Description]) -> None:
    """One line a version, then the reasons of those that need one."""
    print_table(COLUMNS, [row(d) for d in found], right=("version", "a row"))
    for d in found:
        if d["reason"] and d["state"] != "READY":
            click.echo(f"\n{d['name']} {d['version']}: {one_line(d['reason'])}")
        for veto in passed_over(d["plan"] or {}):
            click.echo(f"\n{d['name']} {d['version']}: not on {veto['candidate']}: {one_line(veto['reason'])}")


def row(d: Description) -> tuple[str, ...]:
    """A version as a line of the table."""
    plan = d["plan"]
    return (
        d["name"],
        str(d["version"]),
        d["state"],
        quantisation(d["quantisation"]),
        f"{plan['engine']} {plan['device']}" if plan else "",
        human_us(plan["run_us"]) if plan else "",
        describe_tensors(d["inputs"] or (), most=1),
    )


def show_one(d: Description) -> None:
    """Everything known of one version, as labelled lines."""
    size = f"{d['format']}, {human_bytes(d['file_bytes'])}"
    print_heading(d["name"], f"version {d['version']}  {d['state']}  {size}")
    plan: Description = d["plan"] or {}
    print_labelled(
        [
            ("reason", one_line(d["reason"])),
            ("quantised", quantisation(d["quantisation"], is_long=True)),
            ("variants", ", ".join(variant or "(plain)" for variant in d["variants"])),
            ("inputs", describe_tensors(d["inputs"] or ())),
            ("outputs", describe_tensors(d["outputs"] or ())),
            ("rows", rows(d) if d["inputs"] is not None else ""),
            ("labels", ", ".join(f"{count} for {name}" for name, count in d["labels"].items())),
            *(engine(plan) if plan else ()),
            ("digest", d["digest"][:16]),
        ],
        indent=2,
    )


def engine(plan: Description) -> list[tuple[str, str]]:
    """What runs it, why, how fast, and what was passed over."""
    return [
        ("engine", f"{plan['engine']} on {plan['device']}, variant {plan['variant'] or '(plain)'}"),
        ("why", one_line(plan["reason"])),
        ("run", f"{human_us(plan['run_us'])} a row; {how(plan)}"),
        *((f"not {veto['candidate']}", one_line(veto["reason"])) for veto in passed_over(plan)),
    ]


def passed_over(plan: Description) -> Sequence[Description]:
    """The vetoes of the static rule; of a measured plan `inferd explain` shows them, for they may be many."""
    return () if plan.get("curve") else plan.get("vetoes", ())


def rows(d: Description) -> str:
    """How many rows a request may have."""
    return f"up to {d['max_batch']} a request" if d["max_batch"] else "no batch dimension: shapes exactly as declared"


def quantisation(found: Description | None, *, is_long: bool = False) -> str:
    """`int8 qdq per-channel`, with the operators and sizes when `is_long`."""
    if not found:
        return ""
    short = " ".join(part for part in (found["kind"], found["layout"], found["granularity"]) if part)
    if not is_long:
        return short
    where = ", ".join(f"{count} {op}" for op, count in sorted(found["where"].items()))
    sizes = f"{human_bytes(found['int8_weight_bytes'])} int8 weights, {human_bytes(found['float_weight_bytes'])} float"
    return f"{short}; {sizes}" + (f"; {where}" if where else "")


def how(plan: Description) -> str:
    """Streams, threads and batch in words."""
    together = f"up to {plan['batch']} rows together" if plan["batch"] > 1 else "each request by itself"
    if plan["inline"]:
        return f"inline on the event loop, {together}"
    return f"{plan['streams']} stream(s) of {plan['threads']} thread(s), {together}"
