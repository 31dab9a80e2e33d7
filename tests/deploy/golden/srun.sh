#!/bin/bash

set -uo pipefail
export PYTHONSAFEPATH=1
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=32
export MKL_NUM_THREADS=32
export OPENBLAS_NUM_THREADS=32
export SPECMILL_DATA='/data/it'"'"'s here'
record='runs/my run/jobs/dr17-denoise-'$$.exit

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
exit $status
