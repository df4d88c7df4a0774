#!/usr/bin/env bash
# Tries tokenloom.sbatch on a real Slurm of three nodes, all of them this machine: a run that is told to stop before the
# limit, queued again, and goes on, to the same bytes as one without a stop. It needs root, and no Slurm that runs here.
# Packages: slurmctld slurmd slurm-client slurm-wlm-basic-plugins.
#
# Usage: infra/dev run infra/slurm/try.sh [FOLDER]      FOLDER: new or empty, for all that it leaves; 3 minutes
set -euo pipefail

die() { echo "try.sh: $*" >&2; exit 1; }

[[ $(id -u) == 0 ]] || die "slurmd wants root"
for program in slurmctld slurmd sbatch squeue scontrol; do
    command -v "$program" >/dev/null ||
        die "$program is missing. Run: apt-get install --no-install-recommends slurmctld slurmd slurm-client slurm-wlm-basic-plugins"
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$(mktemp -d /tmp/loom-slurm.XXXX)}
mkdir -p "$folder"/{state,spool/n0,spool/n1,spool/n2,photos}
cd "$folder"
export SLURM_CONF=$PWD/slurm.conf
pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; }
trap stop EXIT

# --- Slurm -----------------------------------------------------------------------------------------------------------

address=$(hostname -I | awk '{print $1}')
cat >slurm.conf <<CONF
ClusterName=try
SlurmctldHost=$(hostname)($address)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation=$PWD/state
SlurmdSpoolDir=$PWD/spool/%n
SlurmctldPidFile=$PWD/slurmctld.pid
SlurmdPidFile=$PWD/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=30
CONF
for index in 0 1 2; do
    echo "NodeName=n$index NodeHostname=$(hostname) NodeAddr=$address Port=$((16820 + index)) CPUs=1" >>slurm.conf
done
echo "PartitionName=all Nodes=n[0-2] Default=YES MaxTime=INFINITE State=UP" >>slurm.conf
echo "CgroupAutomount=no" >cgroup.conf

slurmctld -D >slurmctld.log 2>&1 &
pids+=($!)
for node in n0 n1 n2; do
    slurmd -D -N "$node" >"$node.log" 2>&1 &
    pids+=($!)
done
for _ in $(seq 60); do
    [[ $(sinfo -h -N -o %T 2>/dev/null | grep -c idle) != 3 ]] || break
    sleep 0.5
done
sinfo -N || die "Slurm didn't start; see $folder/slurmctld.log"

# --- a recipe that takes longer than its limit ---------------------------------------------------------------------------

cat >slow.py <<'PYTHON'
import time
import numpy as np
from tokenloom import Labeler, Modality, Vector


class Slow(Labeler):
    makes = (Modality("slow", Vector(dim=3)),)

    def label(self, batch):
        time.sleep(SECONDS)
        return {"slow": [np.asarray(image.mean((0, 1)), np.float32) for image in batch.images]}
PYTHON
cat >slow.yaml <<YAML
corpus: $PWD/photos
output: $PWD/out
units: {samples: 1}
modalities:
  slow: {labeler: "slow:Slow", keep: labels}
YAML
python - <<'PYTHON'
import numpy as np
from PIL import Image
for index in range(40):
    Image.fromarray(np.full((64, 64, 3), 6 * index, np.uint8)).save(f"photos/{index:02d}.png")
PYTHON

sed -i 's/SECONDS/4/' slow.py
job=$(TOKENLOOM_RAY_ARGS="--object-store-memory 100000000" sbatch --parsable --time=3 --cpus-per-task=1 \
    "$here/tokenloom.sbatch" slow.yaml)
echo "job $job"
while state=$(squeue -h -j "$job" -o '%T %r' 2>/dev/null) && [[ -n $state ]]; do
    [[ $state == "${said:-}" ]] || echo "$(date +%T) $state, $(find out -name '*.tar' 2>/dev/null | wc -l) units of 40"
    said=$state
    sleep 1
done
cat "tokenloom-$job.log"

grep -q "40 samples" <(tokenloom status out) || die "the dataset isn't complete"
grep -q "restart 1" "tokenloom-$job.log" || die "the job wasn't queued again"
tokenloom verify out
sed -i 's/sleep(4)/sleep(0)/' slow.py
tokenloom run slow.yaml --output once >once.log 2>&1 || die "see $folder/once.log"
diff -r out once && echo "the same bytes as without a stop"
