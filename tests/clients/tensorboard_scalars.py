"""TensorBoard's own reader sees the curves and samples of a training run: tensorboard_scalars.py RUN_DIRECTORY

What it finds in RUN_DIRECTORY/tensorboard must be what RUN_DIRECTORY/train.jsonl says, also after a resumption. Knows
from README alone how curves are named. Needs the package `tensorboard`; prints `skipped` without it.
"""

import json
import math
import sys
from pathlib import Path

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    print("skipped: the Python package `tensorboard` is not installed")
    sys.exit(0)

STEP = {
    "loss": "Train/loss",
    "answer_loss": "Train/answer_loss",
    "token_accuracy": "Train/accuracy",
    "name_accuracy": "Train/name_accuracy",
    "value_accuracy": "Train/value_accuracy",
    "found_accuracy": "Train/found_accuracy",
    "lr": "Train/lr",
    "gradient_norm": "Train/gradient_norm",
    "gradient_noise": "Train/gradient_noise",
    "tokens_per_second": "Throughput/tokens_per_second",
    "samples_per_second": "Throughput/samples_per_second",
    "total_samples": "Throughput/total_samples",
    "resident_MB": "Memory/resident_MB",
    "peak_resident_MB": "Memory/peak_resident_MB",
}
ALWAYS = {
    "Train/loss", "Train/perplexity", "Train/lr", "Train/gradient_norm",
    "Throughput/tokens_per_second", "Throughput/samples_per_second", "Throughput/total_samples",
}


def numbers(path, value):
    """All numbers below a value, by path."""
    if isinstance(value, dict):
        for field, inner in value.items():
            yield from numbers(f"{path}/{'accuracy' if field == 'token_accuracy' else field}", inner)
    elif isinstance(value, (int, float)):
        yield path, value


def logged(run):
    """The curves that the log tells of: {name: {steps done: value}}."""
    curves = {}
    for line in map(json.loads, (run / "train.jsonl").read_text().splitlines()):
        if line["event"] == "step":
            done, group, loss = line["step"] + 1, "Train", line["loss"]
            found = [(name, line[field]) for field, name in STEP.items() if line.get(field) is not None]
        elif line["event"] == "eval":
            done, group, loss = line["step"], "Validation", line["held_out"]["loss"]
            found = list(numbers(group, line["held_out"]))
        else:
            continue
        for name, value in [*found, (f"{group}/perplexity", math.exp(loss))]:
            curves.setdefault(name, {})[done] = value
    return curves


def shown(run):
    """The curves that TensorBoard shows, in the order in which it shows their points."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def check_samples(run):
    """Every evaluation with sample generations is a page of the text plug-in, in which each of them stands. Returns how many pages."""
    logged = {}
    for line in map(json.loads, (run / "train.jsonl").read_text().splitlines()):
        if line["event"] == "eval" and line.get("samples"):
            logged[line["step"]] = line["samples"]
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert ("Validation/samples" in events.Tags()["tensors"]) == bool(logged), events.Tags()["tensors"]
    if not logged:
        return 0
    assert "Validation/samples" in events.PluginTagToContent("text")
    pages = {event.step: event.tensor_proto for event in events.Tensors("Validation/samples")}
    assert set(pages) == set(logged), (set(pages), set(logged))
    for step, tensor in pages.items():
        [page] = [text.decode() for text in tensor.string_val]
        for number, sample in enumerate(logged[step], 1):
            verdict, got = "right" if sample["right"] else "wrong", sample["got"].split("\n")[0]
            assert f"### {number}: {verdict}\n" in page and f"    {got}\n" in page, (step, page)
    return len(pages)


def main():
    run = Path(sys.argv[1])
    log, board = logged(run), shown(run)
    assert ALWAYS <= set(log), ALWAYS - set(log)
    assert set(board) == set(log), set(board) ^ set(log)
    for name, points in board.items():
        steps = [step for step, _ in points]
        assert steps == sorted(steps), (name, steps)
        assert set(steps) == set(log[name]), (name, steps, log[name])
        # Of two evaluations of one step the later one counts; event files hold 32 bits of a value.
        for step, value in dict(points).items():
            assert math.isclose(value, log[name][step], rel_tol=1e-6), (name, step, value, log[name][step])
    pages = check_samples(run)
    print(f"ok: {len(board)} curves, {sum(map(len, board.values()))} points, {pages} pages of samples")


main()
