"""Run the golden workflows and make what they give what is expected: `python -m tests.golden.renew [NAME ...]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.golden import golden


def main(names: list[str]) -> None:
    """Renew the workflows of these names, by default all."""
    unknown = {*names} - {*golden.NAMES}
    if unknown:
        sys.exit(
            f"there is no golden workflow {', '.join(sorted(unknown))}; there are {', '.join(golden.NAMES)}"
        )
    if not golden.SAME_PLATFORM:
        sys.exit("the golden files are renewed on Linux on x86-64, where their hashes hold")
    with tempfile.TemporaryDirectory() as folder:
        wanted = names or golden.NAMES
        found = golden.run(Path(folder), wanted)
        for name in wanted:
            if name not in found:
                sys.exit(f"{name}: {golden.failure(Path(folder), name)}")
        golden.renew(found)


if __name__ == "__main__":
    main(sys.argv[1:])
