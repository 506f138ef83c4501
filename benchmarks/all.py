"""Run every benchmark, one after another, each in a process of its own; exit status 1 if one missed a bar.

python benchmarks/all.py [--quick]
"""

import argparse
import subprocess
import sys
from pathlib import Path

# What --quick means to each.
QUICK = {
    "prepare": ("--quick",),
    "formats": ("--size", "256x256x150"),
    "vision": ("--regions", "1", "--repeats", "1"),
    "language": ("--quick",),
    "step": ("--quick",),
    "encoded": ("--quick",),
    "generate": ("--quick",),
    "constrained": ("--quick",),
    "paragraphs": ("--quick", "--repeats", "1"),
    "evaluate": ("--quick",),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    quick = parser.parse_args().quick
    failed = []
    for name, options in QUICK.items():
        print(f"\n===== {name}", flush=True)
        script = Path(__file__).with_name(f"{name}.py")
        if subprocess.run([sys.executable, str(script), *(options if quick else ())], check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"missed a bar or failed: {', '.join(failed)}")
