"""Tables about answers: decoding, evaluating, serving."""

from typing import Any

from benchmarks.report_format import Result, about, table


def decode(result: Result) -> str:
    """Return seconds to the first token and decoding rates of ours, the plain LLM and PyTorch."""
    figures = result["figures"]
    names = list(figures["first_token_s"])
    rows = [["first token, s", *(f"{figures['first_token_s'][name]:.2f}" for name in names)]]
    for count, of in figures["tokens_per_s"].items():
        rows.append([f"decoding, {count} row(s), tokens/s", *(f"{of[name]:,.0f}" for name in names)])
    ratios = [f"{figures['ttft_over_dense']:.2f} times v1.0's time to the first token"]
    ratios += [
        f"{figures[f'decode_rate_over_llm_{count}']:.2f} times its rate at {count}" for count in figures["tokens_per_s"]
    ]
    if "ttft_speedup_over_torch" in figures:
        ratios.append(f"**{figures['ttft_speedup_over_torch']:.2f}** times as fast as PyTorch to the first token")
        ratios += [
            f"**{figures[f'decode_speedup_over_torch_{count}']:.2f}** times at {count}"
            for count in figures["tokens_per_s"]
        ]
    said = f"Medians of {figures['rounds']} rounds, and of the ratios within one: {', '.join(ratios)}."
    return f"{about(result)}{table(['', *names], rows)}\n\n{said}"


def decode_weights(result: Result) -> str:
    """Return rates of decoding by weights as they are and quantized, and whether answers stay the same."""
    figures = result["figures"]
    rows = [
        [
            f"{count} row(s)",
            kind,
            f"{of['tokens_per_cpu_s']:,.1f}",
            f"**{of['speedup_cpu']:.2f}**",
            f"{of['tokens_per_s']:,.1f}",
            f"{of['speedup']:.2f}",
        ]
        for count, kinds in figures["rows"].items()
        for kind, of in kinds.items()
    ]
    head = ["", "weights", "tokens a CPU second", "over float32", "tokens/s by the clock", "over float32"]
    answers: dict[str, Any] = figures["answers"]
    same = [
        f"{of['same']} of {answers['prompts']} greedy continuations of {answers['tokens']} tokens stay with {kind}"
        for kind, of in answers.items()
        if isinstance(of, dict)
    ]
    return f"{about(result)}{table(head, rows)}\n\nMedians of {figures['rounds']} rounds. {'; '.join(same)}."


def startup(result: Result) -> str:
    """Return seconds from a new process to its answers."""
    figures = result["figures"]
    rows = [
        [
            name,
            *(f"{cpu:.2f} ({wall:.2f})" for cpu, wall in of.values()),
            f"**{sum(cpu for cpu, _ in of.values()):.2f}**",
        ]
        for name, of in figures["seconds"].items()
    ]
    head = ["CPU s (s)", *next(iter(figures["seconds"].values())), "in all, CPU s"]
    return f"{about(result)}{table(head, rows)}\n\nMedians of {figures['rounds']} rounds."


def evaluating(result: Result) -> str:
    """Return questions a second by the number of questions about an image, next to `transformers`."""
    figures = result["figures"]
    rows = []
    for count in (1, 2, 6):
        faster = figures.get(f"speedup_over_transformers_{count}")
        rate = f"{figures[f'questions_a_second_{count}']:.2f}"
        rows.append([f"{count} question(s) an image", rate, f"**{faster:.2f}**" if faster else ""])
    more = f"Two questions about an image take {figures['two_over_one']:.2f} times the time of one."
    head = ["", "questions/s", "over `transformers`"]
    return f"{about(result)}{table(head, rows)}\n\nMedians of {figures['rounds']} rounds. {more}"


def serve(result: Result) -> str:
    """Return tokens a second by server and load, and waits."""
    figures = result["figures"]
    servers = list(dict.fromkeys(row["server"] for row in figures["load"]))
    loads = list(dict.fromkeys((row["load"], row["clients"]) for row in figures["load"]))
    found = {(row["server"], row["load"], row["clients"]): row for row in figures["load"]}

    def cells(load: tuple[str, str], show: Any) -> list[str]:
        return [show(found[name, *load]) if (name, *load) in found else "" for name in servers]

    rates = [[f"{kind}, {n} clients", *cells((kind, n), lambda row: f"{row['tokens']:,.0f}")] for kind, n in loads]
    waits = [
        [
            f"{kind}, {n}: first token P50, P99; a further one P50",
            *cells(
                (kind, n),
                lambda row: f"{row['first_p50']:.2f}, {row['first_p99']:.2f} s; {1000 * row['token_p50']:.0f} ms",
            ),
        ]
        for kind, n in loads
    ]
    for title, part, show in (
        ("first token of the first and second question about an image", "same", "{first:.2f}, {second:.2f} s"),
        ("wait of others before and while a long prompt is read", "long", "{before:.2f}, {during:.2f} s"),
        ("programs compiled after the start; peak memory", "process", "{compiled}; {gb:.1f} GB"),
    ):
        own = {row["server"]: row | {"gb": row.get("peak", 0) / 1e9} for row in figures[part]}
        waits.append([title, *(show.format(**own[name]) if name in own else "" for name in servers)])
    return f"{about(result)}{table(['tokens/s', *servers], rates)}\n\n{table(['', *servers], waits)}"
