"""Run the tests that `make test` runs with small counts with large ones: `make soak`.

`python -m benchmarks.soak -k killed` runs some of them. Results and durations go to
benchmarks/results/soak.txt with the date, the commit and the machine.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.__main__ import RESULTS, ROOT, heading


def main() -> int:
    """Exit code of pytest; a failed run keeps the earlier result."""
    command = [sys.executable, "-m", "pytest", "-m", "soak", "-v", "--durations=0", *sys.argv[1:]]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        if any(word in line for word in (" PASSED ", " SKIPPED ", "s call ", " passed")):
            lines.append(line)
    code = process.wait()
    if code == 0:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "soak.txt").write_text(f"{heading()}\n\n{''.join(lines)}", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
