"""`anmf-lab demo` from the outside."""
import signal
import subprocess
import sys
import time

import pytest

from anmf_lab.cli import main
from anmf_lab.demo import CASES, index


def demo(*args, **kwargs):
    return subprocess.run([sys.executable, "-m", "anmf_lab", "demo", *args], text=True, capture_output=True, **kwargs)


def test_quick_demo_writes_its_report(tmp_path):
    out = tmp_path / "deep" / "out"
    done = demo("--quick", "--out", str(out))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "not determined" in said and "5 components:" in said and "error bars" in said
    assert sorted(p.name for p in out.iterdir()) == ["report.html", "wtsi.html"]
    page = (out / "wtsi.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 2 and "4 components" in page and len(page) < 2_000_000
    assert "21 breast-cancer genomes" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("args, says", [(("--seeds", "1"), "--seeds must be at least 2"), (("--out", __file__), "test_demo.py")])
def test_bad_arguments(args, says, capsys):
    assert main(["demo", *args]) == 1
    out, err = capsys.readouterr()
    assert says in err and "Traceback" not in err and not out


def test_ctrl_c_is_clean(tmp_path):
    code = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a background job starts with it ignored
            f"from anmf_lab.cli import main; sys.exit(main(['demo', '--out', {str(tmp_path)!r}]))")
    p = subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stdout.readline().startswith("Can the features")
    time.sleep(.5)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=120)
    assert p.returncode == 130 and "stopped" in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_exact_pictures_are_said_to_be_exact_and_free():
    swimmer = CASES[1].run(n_seeds=2, steps=["fit"])
    assert "not determined" in swimmer.verdict and "The fit is exact" in swimmer.verdict
    assert swimmer.about["left_out"] == [] and "swimmer.html" in index([(CASES[1], swimmer)])
