"""What a worker of a DataLoader over a training recipe holds in memory, beside torch's own.

    python tests/benchmarks/loader_memory.py [--quick]

One dataset of 18 modalities as in mixture.py, 256 input and 256 target tokens, batches of 256, one spawned worker. Its
resident memory (MB, all pages, shared ones too) is read from /proc after the first batch and after the last;
`beside_torch_mb` is the latter less that of a process which has imported torch.utils.data. `ratio` is the last by the
first: 1 where memory doesn't grow with the batches. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.loader import TrainingBatches
from torch.utils.data import DataLoader
from training_sets import write_dataset

RECIPE = "data: {{datasets: {{random: {{url: {url}}}}}, masking: all2all, batch_size: 256}}\n"
WITH_TORCH = "import torch.utils.data; print(open('/proc/self/status').read())"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 batches instead of 2,000")
    batches = 100 if parser.parse_args().quick else 2000
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        write_dataset(Store(f"{folder}/dataset"), units=64)
        recipe = Path(folder, "train.yaml")
        recipe.write_text(RECIPE.format(url=f"{folder}/dataset"))
        loader = DataLoader(TrainingBatches(recipe), batch_size=None, num_workers=1, multiprocessing_context="spawn")
        stream = iter(loader)
        (worker,) = stream._workers  # type: ignore[attr-defined] - torch has no public name for them
        next(stream)
        first = resident(Path(f"/proc/{worker.pid}/status").read_text())
        for _ in range(batches - 1):
            next(stream)
        last = resident(Path(f"/proc/{worker.pid}/status").read_text())
        del stream
    alone = subprocess.run([sys.executable, "-c", WITH_TORCH], capture_output=True, text=True, check=True).stdout
    figures = {"batches": batches, "torch_mb": resident(alone), "first_mb": first, "last_mb": last}
    beside = round(last - figures["torch_mb"], 1)
    print(json.dumps({**figures, "beside_torch_mb": beside, "ratio": round(last / first, 3)}))


def resident(status: str) -> float:
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return round(int(kilobytes) * 1024 / 1e6, 1)


if __name__ == "__main__":
    main()
