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
#SBATCH --signal=B:INT@120

set -euo pipefail
export PYTHONSAFEPATH=1
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=32
export MKL_NUM_THREADS=32
export OPENBLAS_NUM_THREADS=32
export SPECMILL_DATA='/data/it'"'"'s here'

exec specmill denoise 'my card.toml' --set 'run.dir='"'"'a run'"'"''
