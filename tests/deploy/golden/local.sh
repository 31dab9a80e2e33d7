#!/bin/bash

set -euo pipefail
export PYTHONSAFEPATH=1
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=32
export MKL_NUM_THREADS=32
export OPENBLAS_NUM_THREADS=32
export SPECMILL_DATA='/data/it'"'"'s here'

exec specmill denoise 'my card.toml' --set 'run.dir='"'"'a run'"'"''
