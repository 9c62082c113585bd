"""Build the sdist and from it the wheel, and use the wheel away from the repository."""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRY = ROOT / "build" / "try"
USE = """
import anmf_lab
assert anmf_lab.__file__.startswith({where!r}), anmf_lab.__file__
for name in anmf_lab.__all__: getattr(anmf_lab, name)
print("wheel", anmf_lab.__version__, "imports:", len(anmf_lab.__all__), "names")
"""


def sh(*args, **kwargs):
    if subprocess.run([sys.executable, *args], **kwargs).returncode:
        sys.exit("the wheel does not work away from the repository: see above")


def main():
    for d in ("build", "dist"):
        shutil.rmtree(ROOT / d, ignore_errors=True)
    built = subprocess.run([sys.executable, "-m", "build", str(ROOT)], text=True, capture_output=True)
    if built.returncode:
        sys.exit(built.stdout[-3000:] + built.stderr[-3000:])
    wheel, = (ROOT / "dist").glob("*.whl")
    sh("-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", str(TRY), str(wheel))
    env = {**os.environ, "PYTHONPATH": str(TRY)}
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as away:
        sh("-c", USE.format(where=str(TRY)), cwd=away, env=env)
        sh(str(TRY / "bin/anmf-lab"), "--version", cwd=away, env=env)


if __name__ == "__main__":
    main()
