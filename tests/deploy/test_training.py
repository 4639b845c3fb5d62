"""Training on several machines: the MPIJob agrees with its image and the trainer, the Slurm script starts what it should.

There is no cluster here. tests/mpi trains over MPI for real.
"""

import os
import re
import tempfile
import unittest
from pathlib import Path

from support import BINARY, DEPLOY, manifest, ran, tool

SCRIPT = DEPLOY / "slurm/train.sbatch"


def pods():
    """{Launcher, Worker: pod} of the MPIJob."""
    specs = manifest("MPIJob")["spec"]["mpiReplicaSpecs"]
    return {name: replicas["template"]["spec"] for name, replicas in specs.items()}


def only(pod):
    (container,) = pod["containers"]
    return container


class MPIJob(unittest.TestCase):
    def setUp(self):
        self.pods = pods()
        self.image = (DEPLOY / "Dockerfile").read_text()

    def test_launcher_and_workers_are_of_the_image_with_mpi(self):
        self.assertEqual({only(pod)["image"] for pod in self.pods.values()}, {"callsmith:mpi"})
        self.assertRegex(self.image, r"(?m)^FROM \S+ AS run-mpi$")

    def test_workers_listen_as_the_image_lets_ssh_ask(self):
        worker = only(self.pods["Worker"])
        (port,) = worker["ports"]
        self.assertEqual(worker["readinessProbe"]["tcpSocket"]["port"], port["name"])
        self.assertEqual(re.findall(r"\bPort (\d+)", self.image), [str(port["containerPort"])] * 2)
        self.assertIn(f"> {worker['args'][-1]}", self.image)

    def test_keys_lie_in_the_home_of_the_user(self):
        keys = manifest("MPIJob")["spec"]["sshAuthMountPath"]
        self.assertIn(f"'HostKey {keys}/id_rsa'", self.image)
        self.assertIn(f"--uid {self.pods['Worker']['securityContext']['runAsUser']} {Path(keys).parent.name}", self.image)

    def test_nothing_runs_as_root_or_writes_its_image(self):
        for pod in self.pods.values():
            rules = {**pod["securityContext"], **only(pod)["securityContext"]}
            self.assertIs(rules["runAsNonRoot"], True)
            self.assertIs(rules["readOnlyRootFilesystem"], True)
            self.assertEqual(rules["capabilities"], {"drop": ["ALL"]})

    def test_every_pod_has_the_directory_that_the_ranks_work_in(self):
        args = only(self.pods["Launcher"])["args"]
        for pod in self.pods.values():
            mounts = {mount["name"]: mount["mountPath"] for mount in only(pod)["volumeMounts"]}
            self.assertEqual(set(mounts), {volume["name"] for volume in pod["volumes"]})
            self.assertEqual(mounts["work"], args[args.index("--wdir") + 1])

    def test_ranks_have_the_time_to_save_a_checkpoint(self):
        asked = only(self.pods["Launcher"])["lifecycle"]["preStop"]["exec"]["command"][-1]
        sleep = int(re.fullmatch(r"kill -USR1 1; sleep (\d+)", asked)[1])
        self.assertEqual(only(self.pods["Worker"])["lifecycle"]["preStop"]["sleep"]["seconds"], sleep)
        for pod in self.pods.values():
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], sleep + 10)

    def test_the_trainer_takes_these_arguments(self):
        args = only(self.pods["Launcher"])["args"]
        command, recipe, *options = args[args.index("callsmith-train") + 1 :]
        code, text = ran(str(Path(BINARY).with_name("callsmith-train")), command, "--help")
        self.assertEqual((code, recipe), (0, "recipe.toml"), text)
        self.assertTrue(all(option in text for option in options), text)


class Slurm(unittest.TestCase):
    def started(self, *args, **variables):
        """What the script runs, as a `srun` that only prints its arguments sees it."""
        with tempfile.TemporaryDirectory() as directory:
            srun = Path(directory) / "srun"
            srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
            srun.chmod(0o755)
            path = f"PATH={directory}:{os.environ['PATH']}"
            settings = [f"{name}={value}" for name, value in variables.items()]
            code, said = ran("env", path, *settings, "bash", str(SCRIPT), *args)
        self.assertEqual(code, 0, said)
        return said.split("\n")[:-1]

    def test_the_linter_finds_nothing_and_would_find_mistakes(self):
        code, said = ran(tool("shellcheck"), str(SCRIPT))
        self.assertEqual((code, said), (0, ""))
        with tempfile.NamedTemporaryFile("w", suffix=".sbatch") as file:
            file.write(SCRIPT.read_text().replace('"$@"', "$@"))
            file.flush()
            self.assertNotEqual(ran(tool("shellcheck"), file.name)[0], 0)

    def test_every_task_runs_the_trainer_with_what_was_asked_and_continues(self):
        said = self.started("lora", "a recipe.toml", SLURM_CPUS_PER_TASK="7")
        trainer = said.index("callsmith-train")
        self.assertEqual(said[trainer + 1 :], ["lora", "a recipe.toml", "--resume"])
        self.assertLessEqual({"--mpi=pmix", "--cpus-per-task=7", "--kill-on-bad-exit=1"}, set(said[:trainer]))

    def test_directives_stand_before_the_first_command(self):
        lines = SCRIPT.read_text().splitlines()
        first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
        directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
        self.assertTrue(directives and max(directives) < first)

    def test_tasks_are_asked_to_stop_before_the_time_is_over(self):
        (signal,) = re.findall(r"(?m)^#SBATCH --signal=(\w+)@(\d+)$", SCRIPT.read_text())
        self.assertEqual(signal[0], "TERM")
        self.assertGreaterEqual(int(signal[1]), 60)
