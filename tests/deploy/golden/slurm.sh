#!/bin/bash
#SBATCH --job-name=dr17-denoise
#SBATCH --partition=long
#SBATCH --account=survey
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --mem=26624M
#SBATCH --gpus=8
#SBATCH --time=1-12:00:00
#SBATCH --output="runs/my run/logs/%x-%j.out"
#SBATCH --error="runs/my run/logs/%x-%j.err"
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120

set -uo pipefail
export PYTHONSAFEPATH=1
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=32
export MKL_NUM_THREADS=32
export OPENBLAS_NUM_THREADS=32
export SPECMILL_DATA='/data/it'"'"'s here'
record='runs/my run/jobs/dr17-denoise-'$SLURM_JOB_ID.exit

rm -f "$record"
# A signal goes to the command, which keeps what is finished and ends with status 4.
child= signal=
trap 'signal=USR1; kill -USR1 $child' USR1
trap 'signal=TERM; kill -TERM $child' TERM INT HUP
specmill denoise 'my card.toml' --set 'run.dir='"'"'a run'"'"'' &
child=$!
wait $child
# A trap ends a wait, not the command.
while kill -0 $child; do wait $child; done 2>/dev/null
wait $child && status=0 || status=$?
echo "$status $signal" >"$record.partial" && mv "$record.partial" "$record"
# Interrupted by its walltime: it queues again, and goes on. 138: before it could listen.
if [[ $signal = USR1 && $status =~ ^(4|138)$ && ${SLURM_RESTART_COUNT:-0} -lt 20 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
# Quarantined inputs are no failure: what waits for this job may begin.
[ "$status" != 1 ] || exit 0
exit $status
