"""The large counts that `make test` runs small: `make soak`, or `python -m benchmarks.soak -k killed`.

What passed, and how long each took, goes to benchmarks/results/soak.txt under the date, the commit and the
machine.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.__main__ import RESULTS, ROOT, heading


def main() -> int:
    """Exit code of pytest; a run that failed leaves the last result in its place."""
    command = [sys.executable, "-m", "pytest", "-m", "soak", "-v", "--durations=0", *sys.argv[1:]]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        print(line, end="", flush=True)
        if any(word in line for word in (" PASSED ", " SKIPPED ", "s call ", " passed")):
            told.append(line)
    code = process.wait()
    if code == 0:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "soak.txt").write_text(f"{heading()}\n\n{''.join(told)}", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
