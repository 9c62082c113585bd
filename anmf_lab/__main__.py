"""`python -m anmf_lab` is `anmf-lab`."""
import sys

from anmf_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
