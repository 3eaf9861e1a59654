"""How many threads a call may use: the environment, the processors, control groups, what the program sets."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
from build_core import CSRC

import xent

PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
needs_two = pytest.mark.skipif(PROCESSORS < 2, reason="needs two processors")
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sets the affinity of a process")


def run_python(code, **variables):
    """Return what `code` prints in a process whose OpenMP variables are `variables` alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def threads_with(code="pass", **variables):
    return int(run_python(f"import os, xent; {code}; print(xent.get_num_threads())", **variables))


@pytest.fixture
def unrestricted():
    """Return the threads that a process gets where no variable is set."""
    return threads_with()


def test_default_is_at_most_the_processors(unrestricted):
    assert 1 <= unrestricted <= PROCESSORS


@pytest.mark.parametrize("text", ["1", "1,4", " 1 "])
@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT"])
def test_variables_are_obeyed(name, text):
    assert threads_with(**{name: text}) == 1


@pytest.mark.parametrize("text", ["", "0", "-3", "many", "1x", "9" * 30])
@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT"])
def test_variables_that_are_no_positive_number_set_no_limit(name, text, unrestricted):
    assert threads_with(**{name: text}) == unrestricted


def test_variables_do_not_exceed_the_processors(unrestricted):
    assert threads_with(OMP_NUM_THREADS="1000") == unrestricted


@needs_affinity
def test_affinity_of_the_moment_is_obeyed():
    assert threads_with("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})") == 1


@needs_two
def test_set_num_threads_takes_the_place_of_the_variable(unrestricted):
    assert threads_with("xent.set_num_threads(2)", OMP_NUM_THREADS="1") == min(2, unrestricted)
    assert threads_with("xent.set_num_threads(1)") == 1


def test_set_num_threads_does_not_exceed_what_there_is(unrestricted):
    assert threads_with("xent.set_num_threads(1000)") == unrestricted
    assert threads_with("xent.set_num_threads(1000)", OMP_THREAD_LIMIT="1") == 1


COUNT_THREADS = """
import os
import numpy as np, xent
x = np.zeros((1000, 1000), np.float32)
before = len(os.listdir("/proc/self/task"))
xent.cross_entropy(x, np.zeros(1000, int), n_threads={n_threads})
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads of /proc")
@pytest.mark.parametrize(
    ("n_threads", "variables", "made"),
    [(1, {}, 0), (4, {}, 3), (4, {"OMP_NUM_THREADS": "1"}, 3), (4, {"OMP_THREAD_LIMIT": "2"}, 1)],
)
def test_no_more_threads_are_made_than_were_asked_for(n_threads, variables, made):
    """`n_threads` is an explicit wish, before which only OMP_THREAD_LIMIT stands."""
    assert int(run_python(COUNT_THREADS.format(n_threads=n_threads), **variables)) == made


# ---- Control groups --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quota(tmp_path_factory):
    """Compile the reader of control groups, and return it as a function of the root folder."""
    library = tmp_path_factory.mktemp("quota") / "quota.so"
    subprocess.run(["cc", "-std=c11", "-shared", "-fPIC", CSRC / "quota.c", "-lm", "-o", library], check=True)
    function = ctypes.CDLL(library).xent_quota
    return lambda root: function(os.fsencode(root))


V2_MOUNT = "41 31 0:38 {top} /sys/fs/cgroup{folder} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "32 31 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
OTHER_MOUNTS = (
    "23 1 254:0 / / rw,relatime - ext4 /dev/root rw\n"
    "33 31 0:31 / /sys/fs/cgroup/cpuset rw,nosuid - cgroup cgroup rw,cpuset\n"
)
V1_CPU = "sys/fs/cgroup/cpu,cpuacct"


class Tree:
    """A file system of one's own."""

    def __init__(self, root):
        self.root = root

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def version_2(self, group, top="/", folder=""):
        self.write("proc/self/cgroup", f"0::{group}\n")
        self.write("proc/self/mountinfo", OTHER_MOUNTS + V2_MOUNT.format(top=top, folder=folder))

    def version_1(self, group, top="/"):
        self.write("proc/self/cgroup", f"9:cpuset:/wrong\n4:cpu,cpuacct:{group}\n1:name=systemd:/wrong\n")
        self.write("proc/self/mountinfo", OTHER_MOUNTS + V1_MOUNT.format(top=top))

    def limit_1(self, folder, quota, period=100_000):
        self.write(f"{folder}/cpu.cfs_quota_us", f"{quota}\n")
        self.write(f"{folder}/cpu.cfs_period_us", f"{period}\n")


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("text", "threads"),
    [
        ("max 100000\n", 0),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("50000 10000\n", 5),
        ("", 0),
        ("nonsense\n", 0),
        ("100000\n", 0),
        ("0 0\n", 0),
    ],
)
def test_version_2(tree, quota, text, threads):
    tree.version_2("/a/b")
    tree.write("sys/fs/cgroup/a/b/cpu.max", text)
    assert quota(tree.root) == threads


@pytest.mark.parametrize("tightest", ["/a/b/c", "/a/b", "/a", ""])
def test_version_2_takes_the_tightest_of_nested_limits(tree, quota, tightest):
    tree.version_2("/a/b/c")
    for group in ("/a/b/c", "/a/b", "/a", ""):
        tree.write(f"sys/fs/cgroup{group}/cpu.max", "300000 100000\n" if group == tightest else "700000 100000\n")
    tree.write("sys/fs/cgroup/other/cpu.max", "100000 100000\n")
    tree.write("sys/fs/cpu.max", "100000 100000\n")
    assert quota(tree.root) == 3


@pytest.mark.parametrize(("number", "threads"), [(-1, 0), (400_000, 4), (110_000, 2), (1000, 1)])
def test_version_1(tree, quota, number, threads):
    tree.version_1("/docker/123")
    tree.limit_1(f"{V1_CPU}/docker/123", number)
    assert quota(tree.root) == threads


def test_version_1_takes_the_tightest_of_nested_limits(tree, quota):
    tree.version_1("/pod/container")
    tree.limit_1(f"{V1_CPU}/pod/container", -1)
    tree.limit_1(f"{V1_CPU}/pod", 250_000)
    tree.limit_1(V1_CPU, 900_000)
    assert quota(tree.root) == 3


def test_both_versions_at_once(tree, quota):
    tree.version_1("/a")
    hybrid = {
        "proc/self/cgroup": "4:cpu,cpuacct:/a\n0::/b\n",
        "proc/self/mountinfo": V1_MOUNT.format(top="/") + V2_MOUNT.format(top="/", folder="/unified"),
    }
    for path, text in hybrid.items():
        tree.write(path, text)
    tree.limit_1(f"{V1_CPU}/a", 500_000)
    assert quota(tree.root) == 5
    tree.write("sys/fs/cgroup/unified/b/cpu.max", "200000 100000\n")
    assert quota(tree.root) == 2


@pytest.mark.parametrize(
    ("group", "top"),
    [
        ("/docker/123", "/docker/123"),  # the mount point shows the container's group, the process sees the host's
        ("/docker/123/job", "/docker/123"),  # ... and has made one of its own
        ("/", "/"),  # a namespace hides what is above
        ("/../host", "/"),  # the process was moved out of its namespace's root
        ("/docker/1234", "/docker/123"),  # another group, whose name begins alike
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_containers(tree, quota, group, top, version):
    if version == 1:
        tree.version_1(group, top)
        tree.limit_1(V1_CPU, 300_000)
    else:
        tree.version_2(group, top)
        tree.write("sys/fs/cgroup/cpu.max", "300000 100000\n")
    assert quota(tree.root) == 3


def test_missing_files_set_no_limit(tree, quota):
    assert quota(tree.root) == 0
    tree.version_2("/a")
    assert quota(tree.root) == 0
    (tree.root / "proc/self/cgroup").unlink()
    tree.write("sys/fs/cgroup/cpu.max", "300000 100000\n")
    assert quota(tree.root) == 0


def test_long_lines_are_not_mistaken(tree, quota):
    tree.version_2("/" + "a" * 20_000)
    mountinfo = tree.root / "proc/self/mountinfo"
    mountinfo.write_text("24 1 0:1 / /" + "b" * 20_000 + " rw - tmpfs tmpfs rw\n" + mountinfo.read_text())
    tree.write("sys/fs/cgroup/cpu.max", "300000 100000\n")
    assert quota(tree.root) == 3


def test_quota_of_this_process_is_obeyed(quota, unrestricted):
    assert unrestricted <= (quota("") or PROCESSORS)


def test_a_limited_call_gives_the_same_bits(rng):
    x, target = rng.normal(size=(300, 2000)).astype(np.float32), rng.integers(2000, size=300)
    results = [xent.cross_entropy_and_grad(x, target, n_threads=n) for n in (1, 1000)]
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
