"""`inferd models`: what the daemon serves, on which engine and why, and whether it is INT8."""

from __future__ import annotations

from typing import Any

import click

from inferd_agent.cli.output import client_options, console, human_bytes, human_us, json_option, print_json, print_table

STATE_STYLE = {"READY": "green", "FAILED": "red", "LOADING": "yellow", "DRAINING": "yellow", "UNLOADED": "dim"}


@click.command("models")
@click.argument("model", required=False)
@json_option
@client_options
def command(model: str | None, as_json: bool, url: str | None, token: str | None, ca: str | None) -> int:
    """Show all models, or everything about MODEL.

    A model that failed shows its reason; an engine that was passed over shows its own words.
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
        click.echo(
            "No models yet. Put one at MODELS/<name>.onnx or MODELS/<name>/1/model.onnx; it is served as it lands."
        )
    return 0 if all(d["state"] != "FAILED" for d in found) else 1


def show_all(found: list[dict[str, Any]]) -> None:
    """One line a version, then the reasons of those that need one."""
    columns = ("model", "version", "state", "int8", "engine", "run", "file", "inputs", "outputs")
    print_table("", columns, [_row(d) for d in found], right="version run file")
    for d in found:
        if d["reason"] and d["state"] != "READY":
            click.echo(f"\n{d['name']} {d['version']}: {d['reason']}")
        for veto in (d["plan"] or {}).get("vetoes", ()):
            click.echo(f"\n{d['name']} {d['version']}: not on {veto['candidate']}: {veto['reason']}")


def show_one(d: dict[str, Any]) -> None:
    """Everything known of one version, as labelled lines."""
    out = console()
    plan, spec = d["plan"], d["inputs"] is not None
    style = STATE_STYLE.get(d["state"], "")
    size = human_bytes(d["file_bytes"])
    out.print(f"[bold]{d['name']}[/] version {d['version']}  [{style}]{d['state']}[/]  {d['format']}, {size}")
    lines = [
        ("reason", d["reason"]),
        ("int8", quantisation(d["quantisation"], long=True)),
        ("variants", ", ".join(v or "(plain)" for v in d["variants"])),
        ("inputs", tensors(d["inputs"]) if spec else ""),
        ("outputs", tensors(d["outputs"]) if spec else ""),
        ("rows", f"up to {d['max_batch']} a request" if d["max_batch"] else "no batch dimension" if spec else ""),
        ("engine", f"{plan['engine']} on {plan['device']}, variant {plan['variant'] or '(plain)'}" if plan else ""),
        ("why", plan["reason"] if plan else ""),
        ("run", f"{human_us(plan['run_us'])} a row; {how(plan)}" if plan else ""),
        *((f"not {v['candidate']}", v["reason"]) for v in (plan or {}).get("vetoes", ())),
        ("digest", d["digest"][:16]),
    ]
    for label, text in lines:
        if text:
            out.print(f"  {label:<10} {text}", markup=False)


def _row(d: dict[str, Any]) -> tuple[str, ...]:
    plan, has_spec = d["plan"], d["inputs"] is not None
    return (
        d["name"],
        str(d["version"]),
        d["state"],
        quantisation(d["quantisation"]),
        f"{plan['engine']} {plan['device']}" if plan else "",
        human_us(plan["run_us"]) if plan else "",
        human_bytes(d["file_bytes"]),
        tensors(d["inputs"]) if has_spec else "",
        tensors(d["outputs"]) if has_spec else "",
    )


def tensors(specs: list[dict[str, Any]]) -> str:
    """`x FP32 [-1,64], ...`, cut after four."""
    texts = [f"{s['name']} {s['datatype']} [{','.join(map(str, s['shape']))}]" for s in specs[:4]]
    return ", ".join(texts) + (f" and {len(specs) - 4} more" if len(specs) > 4 else "")


def quantisation(found: dict[str, Any] | None, *, long: bool = False) -> str:
    """`int8 qdq per-channel`, with the operators and sizes when `long`."""
    if not found:
        return ""
    short = " ".join(part for part in (found["kind"], found["layout"], found["granularity"]) if part)
    if not long:
        return short
    where = ", ".join(f"{count} {op}" for op, count in sorted(found["where"].items()))
    sizes = f"{human_bytes(found['int8_weight_bytes'])} int8 weights, {human_bytes(found['float_weight_bytes'])} float"
    return f"{short}; {sizes}" + (f"; {where}" if where else "")


def how(plan: dict[str, Any]) -> str:
    """Streams, threads and batch in words."""
    if plan["inline"]:
        return f"inline on the event loop, up to {plan['batch'] or 1} rows together"
    batch = f"up to {plan['batch']} rows together" if plan["batch"] else "one job at a time"
    return f"{plan['streams']} streams of {plan['threads']} thread(s), {batch}"
