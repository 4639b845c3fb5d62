"""Runs of several ranks over Open MPI: their weights, their stops, their deaths. Called by `run` with the binary.

Knows what a run leaves in its output directory, not how ranks speak to each other.
"""

import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = sys.argv.pop()
STEPS = 8
# Tokens that a rank sees in a step.
BATCH = 512
# Root is what runs in containers; the machine may have fewer cores than ranks.
MPIRUN = "mpirun --allow-run-as-root --oversubscribe --bind-to none".split()
# Seconds from SIGTERM at mpirun to SIGTERM at its ranks, and from there to SIGKILL.
GRACE = 10
RECIPE = f"""
method = "lora"
seed = 3
threads = 1
model = {{ path = "{ROOT}/models/embedded" }}
lora = {{ rank = 4, alpha = 8, dropout = 0.1 }}
optim = {{ lr = 0.002, warmup_steps = 2 }}
batch = {{ tokens = {BATCH}, max_len = 256, micro_tokens = 256 }}
eval = {{ split = 0.1, every = 4, samples = 8 }}
log = {{ every = 1 }}
checkpoint = {{ every = 2, keep = 9 }}
"""
LIMIT = 120


class Run:
    """A run with its own output directory."""

    def __init__(self, root, name, data="data.jsonl", **sets):
        self.output = root / name
        text = f'output = "{self.output}"\n' + RECIPE
        text += f'phase = [{{ steps = {STEPS}, source = [{{ jsonl = "{root / data}" }}] }}]\n'
        self.recipe = root / f"{name}.toml"
        self.recipe.write_text(text)
        self.sets = [word for key, value in sets.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]

    def command(self, *more):
        return [BINARY, "lora", str(self.recipe), *self.sets, *more]

    def over(self, ranks, *more):
        return [*MPIRUN, "-np", str(ranks), *self.command(*more)]

    def weights(self):
        """The exported adapter's bytes, and its numbers by tensor."""
        data = (self.output / "model/adapter_model.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
        header.pop("__metadata__", None)
        places = {name: entry["data_offsets"] for name, entry in header.items()}
        return data, {name: struct.unpack(f"<{(b - a) // 4}f", body[a:b]) for name, (a, b) in places.items()}

    def log(self):
        return [json.loads(line) for line in (self.output / "train.jsonl").read_text().splitlines()]

    def events(self):
        """The kinds of events so far; the last line may be half written."""
        log = self.output / "train.jsonl"
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        return [json.loads(line)["event"] for line in lines if line.endswith("\n")]

    def speed(self):
        speeds = [line["tokens_per_second"] for line in self.log() if line["event"] == "step"]
        return statistics.median(speeds)

    def held_out(self):
        return [line["held_out"]["loss"] for line in self.log() if line["event"] == "eval"]

    def checkpoints(self):
        return sorted(int(path.name.partition("-")[2]) for path in self.output.glob("checkpoint-*"))


def ran(command):
    """The exit code and what was said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT)
    return done.returncode, done.stdout


@contextmanager
def running(command):
    """The process, unheard; it ends with the test, and its ranks with it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=LIMIT)


def ranks_of(launcher):
    """{rank: process id} of what an mpirun has started."""
    found = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(it.partition(b"=")[2]): int(child) for it in variables if it.startswith(b"OMPI_COMM_WORLD_RANK=")}
    return found


def until(holds):
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Ranks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.root = Path(directory.name)
        (cls.root / "short.toml").write_text("tools = [1, 2]\n")
        made = [f"--config={cls.root}/short.toml", "--count=300", f"--out={cls.root}/data.jsonl"]
        cls.succeed([BINARY, "data", "synth", *made])
        cls.whole = Run(cls.root, "whole")
        cls.succeed(cls.whole.over(2))

    @staticmethod
    def succeed(command):
        code, said = ran(command)
        assert code == 0, said

    def finishes_like_the_whole(self, run):
        self.succeed(run.over(2, "--resume"))
        self.assertEqual(run.weights()[0], self.whole.weights()[0])

    def test_two_ranks_train_what_one_trains_with_the_double_batch(self):
        one = Run(self.root, "one", batch__tokens=2 * BATCH)
        self.succeed(one.command())
        (_, two), (_, one_weights) = self.whole.weights(), one.weights()
        self.assertEqual(two.keys(), one_weights.keys())
        pairs = [pair for name in two for pair in zip(two[name], one_weights[name], strict=True)]
        differ, largest = max(abs(a - b) for a, b in pairs), max(abs(b) for _, b in pairs)
        speeds = f"{self.whole.speed():.0f} tokens/s on two ranks of a thread, {one.speed():.0f} on one"
        print(f"{len(pairs)} weights up to {largest:.3f} differ by at most {differ:.1e}; {speeds}")
        # A fortieth of what one step may change: AdamW magnifies the rounding of small gradients.
        self.assertLess(differ, 5e-5)
        for found, expected in zip(self.whole.held_out(), one.held_out(), strict=True):
            self.assertAlmostEqual(found, expected, places=4)

    def test_the_first_rank_alone_writes_and_reports(self):
        events = self.whole.events()
        self.assertEqual([events.count(event) for event in ("start", "step", "finished")], [1, STEPS, 1])

    def test_a_killed_rank_ends_the_job_and_the_run_resumes_bit_for_bit(self):
        run = Run(self.root, "killed")
        with running(run.over(2)) as process:
            until(lambda: run.checkpoints())
            os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
            self.assertNotEqual(process.wait(timeout=LIMIT), 0)
        self.assertLess(run.checkpoints()[-1], STEPS)
        self.finishes_like_the_whole(run)

    def stops(self, run, command, ask):
        """The job's exit code after it was asked to stop in its first step, and saved a checkpoint."""
        with running(command) as process:
            until(lambda: "step" in run.events())
            process.send_signal(ask)
            code = process.wait(timeout=LIMIT)
        last = run.log()[-1]
        self.assertEqual((last["event"], last["step"]), ("stopped", run.checkpoints()[-1]))
        return code

    def test_sigusr1_stops_all_ranks_with_a_checkpoint_from_which_they_resume_bit_for_bit(self):
        run = Run(self.root, "asked", checkpoint__every=1000)
        self.assertEqual(self.stops(run, run.over(2), signal.SIGUSR1), 0)
        self.assertLess(run.checkpoints()[-1], STEPS)
        self.finishes_like_the_whole(run)

    def test_sigterm_ends_the_job_with_a_checkpoint_where_mpirun_leaves_the_time(self):
        run = Run(self.root, "ended", phase__0__steps=1000, checkpoint__every=1000, eval__every=1000)
        patient = [MPIRUN[0], "--mca", "odls_base_sigkill_timeout", str(GRACE), *run.over(2)[1:]]
        self.stops(run, patient, signal.SIGTERM)

    def test_an_error_on_one_rank_ends_the_job_in_its_words(self):
        good = Run(self.root, "broken")
        bad = Run(self.root, "bad", data="bad.jsonl")
        (self.root / "bad.jsonl").write_text('{"messages": 3}\n')
        code, said = ran([*MPIRUN, "-np", "1", *good.command(), ":", "-np", "1", *bad.command()])
        self.assertNotEqual(code, 0)
        self.assertIn("error on rank 1 of 2", said)
        self.assertEqual(said.count("bad.jsonl:1"), 1, said)
        self.assertEqual(good.checkpoints(), [])

    def test_an_error_on_all_ranks_is_said_once(self):
        (self.root / "worse.jsonl").write_text('{"messages": 4}\n')
        for sets, words in (({"data": "worse.jsonl"}, "worse.jsonl:1"), ({"optim__lr": -1}, "`optim.lr`")):
            code, said = ran(Run(self.root, "worse", **sets).over(2))
            self.assertNotEqual(code, 0)
            self.assertEqual(said.count("error on rank 0 of 2"), 1, said)
            self.assertEqual(said.count(words), 1, said)

    def test_an_error_on_one_rank_in_the_midst_of_the_run_is_in_the_log_of_the_first(self):
        run = Run(self.root, "midst", phase__0__source__0__jsonl="local.jsonl", eval__split="0.0")
        lines = (self.root / "data.jsonl").read_text().splitlines()
        unanswered = '{"messages": [{"role": "user", "content": "hello"}]}'
        for name, broken in (("whole-here", []), ("broken-here", [unanswered] * 30)):
            (self.root / name).mkdir()
            text = "\n".join(lines[: len(lines) - len(broken)] + broken) + "\n"
            (self.root / name / "local.jsonl").write_text(text)
        places = [["-wdir", str(self.root / name), "-np", "1", *run.command()] for name in ("whole-here", "broken-here")]
        code, said = ran([*MPIRUN, *places[0], ":", *places[1]])
        self.assertNotEqual(code, 0)
        self.assertEqual(said.count("error on rank 1 of 2"), 1, said)
        last = run.log()[-1]
        self.assertEqual(last["event"], "failed", said)
        self.assertTrue(last["error"].startswith("error on rank 1 of 2: data: local.jsonl:"), last)
        self.assertIn("no assistant message", last["error"])
        self.assertIn("failed after step", (run.output / "report.html").read_text())

    def test_ranks_that_mpi_does_not_find_are_refused(self):
        run = Run(self.root, "lonely")
        code, said = ran(["env", "SLURM_STEP_NUM_TASKS=2", *run.command()])
        self.assertEqual(code, 1)
        self.assertIn("srun --mpi=pmix", said)


def main():
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Ranks)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    broken = len(result.failures) + len(result.errors)
    outcome = "FAILED" if broken else "ok"
    print(f"test result: {outcome}. {result.testsRun - broken} passed; {broken} failed; 0 ignored", flush=True)
    return 1 if broken or not result.testsRun else 0


if __name__ == "__main__":
    sys.exit(main())
