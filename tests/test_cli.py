"""The program as a user meets it: a process with an exit code, output and errors."""
import io
import subprocess
import sys

import numpy as np
import pytest

import anmf_lab
from anmf_lab.cli import COMMANDS, build_parser, main


def anmf(*args):
    return subprocess.run([sys.executable, "-m", "anmf_lab", *args], text=True, capture_output=True)


def test_version():
    done = anmf("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"anmf-lab {anmf_lab.__version__}")


def test_help_does_not_load_torch():
    code = "import sys; from anmf_lab.cli import build_parser; build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("args", [(), ("nonsense",), ("--nonsense",)])
def test_a_wrong_line_is_exit_code_2(args):
    done = anmf(*args)
    assert done.returncode == 2 and "usage: anmf-lab" in done.stderr and not done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_offered_command_has_help(name, capsys):
    try:
        _, module = build_parser(name)
    except ModuleNotFoundError:
        module = None
    if module is None:
        pytest.skip(f"{name} is not part of this version")
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0 and f"anmf-lab {name}" in capsys.readouterr().out


def test_data_larger_than_memory_are_said(tmp_path, capsys):
    "The file is all hole: eight petabytes that take no place"
    np.lib.format.write_array_header_1_0(buffer := io.BytesIO(), dict(descr="<f8", fortran_order=False, shape=(10**9, 10**6)))
    (tmp_path / "huge.npy").write_bytes(buffer.getvalue())
    assert main(["audit", str(tmp_path / "huge.npy"), "--rank", "2", "--out", str(tmp_path / "report.html")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("anmf-lab audit: not enough memory: ") and "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["huge.npy"]
