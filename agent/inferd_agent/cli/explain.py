"""`inferd explain`: how a model is run on this machine, what was measured for that, and how to have it otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from inferd_agent.cli.models import how
from inferd_agent.cli.output import (
    client_options,
    human_bytes,
    human_us,
    json_option,
    one_line,
    print_heading,
    print_json,
    print_labelled,
    print_table,
)

Facts = Mapping[str, Any]
OBJECTIVES = ("latency", "throughput", "balanced")
MOST_ROWS = 12
# An engine may take a page to say why it refuses a model.
MOST_CHARACTERS = 200
STATES = {
    "off": 'not measured: planning.mode = "off" in the daemon\'s configuration',
    "static": "not measured yet",
    "queued": "waits to be measured, for its turn or until the machine is calm",
}


@click.command("explain")
@click.argument("model")
@click.option("--version", "version", metavar="N", help="Model version.  [default: the highest ready one]")
@json_option
@client_options
def command(model: str, version: str | None, as_json: bool, url: str | None, token: str | None, ca: str | None) -> None:
    """Show how MODEL is run on this machine and why: all that was measured, the choice, and what was ruled out.

    The best candidates come first. How to read it, and how to overrule it: docs/planning.md.

    \b
    inferd explain digits
    inferd explain digits --json | jq '.evidence.trials[] | [.name, .outcome, .run_us]'
    """
    from inferd import Client

    with Client(url, token=token, ca=ca) as client:
        found = client.evidence(model, version=version)
    print_json(found) if as_json else show(found, time.time())


def show(found: Facts, now_s: float) -> None:
    """The choice and why, the candidates, those ruled out, and what to do."""
    evidence: Facts | None = found["evidence"]
    print_heading(found["model"], f"version {found['version']}  {state(found, now_s)}")
    print_labelled([*choice(found), *(basis(evidence) if evidence else ())], indent=2)
    if evidence:
        show_candidates(found["model"], evidence)
    click.echo()
    print_labelled(advice(found["model"], evidence))


def state(found: Facts, now_s: float) -> str:
    """Whether it was measured, and when; or how far that is."""
    if found["state"] == "measuring":
        return f"being measured: {found['done']} of {found['total']} tried, now {found['now'] or 'the first'}"
    if found["state"] == "measured":
        return f"measured {span(now_s - found['evidence']['made_at_s'])} ago"
    return STATES.get(found["state"], str(found["state"]))


def choice(found: Facts) -> Iterator[tuple[str, str]]:
    """What runs, and why."""
    plan, evidence = found["plan"], found["evidence"]
    if plan is None:
        yield "runs on", f"nothing: it does not serve now, see inferd models {found['model']}"
        return
    is_measured = bool(plan["curve"]) and evidence is not None
    yield "runs on", f"{evidence['chosen'] if is_measured else named(plan)}: {how(plan)}"
    if is_measured and plan["idle"]:
        yield "when idle", f"{evidence['idle']}: how a request runs that comes alone"
    yield "why", one_line(plan["reason"])
    if evidence is None:
        yield "one row", human_us(plan["run_us"]) if plan["run_us"] else ""
    elif not is_measured:
        yield "but", f"{evidence['chosen'] or 'nothing'} was the measured choice"
    if not is_measured:
        yield from ((f"not {veto['candidate']}", briefly(veto["reason"])) for veto in plan["vetoes"])


def named(plan: Facts) -> str:
    """A plan of the static rule as candidates are called."""
    precision = "" if plan["precision"] == "auto" else plan["precision"]
    return " ".join(filter(None, (plan["engine"], plan["device"], plan["variant"], precision)))


def basis(evidence: Facts) -> list[tuple[str, str]]:
    """What the choice rests on."""
    reference = f", answers compared with {evidence['reference']}" if evidence["reference"] else ""
    spent = f"{evidence['took_s']:.0f} of {evidence['budget_s']:.0f} s"
    return [
        ("objective", evidence["objective"]),
        ("measured", f"{spent}, {evidence['inputs']} inputs{reference}"),
    ]


def show_candidates(model: str, evidence: Facts) -> None:
    """The measured ones, best first, and below why the others are out."""
    best = ranked(evidence)
    if best:
        unit = "us" if best[0]["run_us"] < 1000 else "ms"
        figures = (f"p50 {unit}", f"p95 {unit}", "rows/s", "memory")
        rows = [row(trial, evidence, unit) for trial in best[:MOST_ROWS]]
        click.echo()
        print_table(("", "candidate", *figures, "error"), rows, right=figures)
        if len(best) > MOST_ROWS:
            click.echo(f"and {len(best) - MOST_ROWS} more: inferd explain {model} --json")
        click.echo("2x1: two runs at once, one thread each.")
    if ruled_out := list(others(model, evidence)):
        click.echo()
        print_labelled(ruled_out)


def ranked(evidence: Facts) -> list[Facts]:
    """The measured candidates: the chosen one, then the others as the objective has them."""
    measured = [trial for trial in evidence["trials"] if trial["outcome"] == "measured"]

    def key(trial: Facts) -> tuple[bool, float]:
        figure = trial["run_us"] if evidence["objective"] == "latency" else -trial["rows_per_s"]
        return trial["name"] != evidence["chosen"], figure

    return sorted(measured, key=key)


def row(trial: Facts, evidence: Facts, unit: str) -> tuple[str, ...]:
    """One candidate as a line of the table."""
    part = {evidence["idle"]: "when idle", evidence["chosen"]: "chosen"}.get(trial["name"], "")
    times = [trial["run_us"], trial["run_p95_us"]]
    rows_per_s = trial["rows_per_s"]
    return (
        part,
        trial["name"],
        *(f"{us:.1f}" if unit == "us" else f"{us / 1000:.2f}" for us in times),
        f"{rows_per_s:.0f}" if rows_per_s >= 100 else f"{rows_per_s:.1f}",
        human_bytes(trial["memory_bytes"]) if trial["memory_bytes"] else "",
        f"{trial['error']:.2g} {trial['metric']}" if trial["metric"] else "",
    )


def others(model: str, evidence: Facts) -> Iterator[tuple[str, str]]:
    """Those that were ruled out, each reason once; of those that were not tried only how many they are."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for trial in evidence["trials"]:
        if trial["outcome"] in ("vetoed", "failed"):
            by_reason.setdefault((trial["outcome"], briefly(trial["reason"])), []).append(trial["name"])
    for (outcome, reason), names in by_reason.items():
        more = f" and {len(names) - 1} like it" if len(names) > 1 else ""
        yield outcome, f"{names[0]}{more}: {reason}"
    if skipped := sum(trial["outcome"] == "skipped" for trial in evidence["trials"]):
        yield "skipped", f"{skipped} without promise, or for want of time: inferd explain {model} --json"


def briefly(reason: str) -> str:
    """The beginning of a reason; all of it is in the JSON."""
    line = one_line(reason)
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS].rstrip()} ... (--json has the rest)"


def advice(model: str, evidence: Facts | None) -> Sequence[tuple[str, str]]:
    """What to do about it."""
    keys = "device, variant, precision, streams, threads, batch, inline"
    overrule = ("overrule", f'in its model.toml: engine = "onnxruntime", say; also {keys}')
    if evidence is None:
        return (("measure now", f"inferd plan {model}"), overrule)
    rest = " or ".join(f'"{name}"' for name in OBJECTIVES if name != evidence["objective"])
    return (
        overrule,
        ("aim elsewhere", f"in its model.toml: objective = {rest}"),
        ("accuracy", "in its model.toml: metric and tolerance, how far answers may stray"),
        ("measure again", f"inferd plan {model}, with --budget SECONDS or --thorough for more"),
    )


def span(seconds: float) -> str:
    """7200 -> "2 h"."""
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{max(seconds, 0) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
