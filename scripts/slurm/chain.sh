#!/usr/bin/env bash
# Submits a fit and, to run once it has ended well, the array of transforms.
#   scripts/slurm/chain.sh DATA MODEL.h5 W.zarr ROWS JOBS -k 50 [options of nmfstream fit]
set -eu
[ $# -ge 5 ] || { echo "usage: chain.sh DATA MODEL.h5 W.zarr ROWS JOBS -k N [options of nmfstream fit]" >&2; exit 2; }
data=$1 model=$2 output=$3 rows=$4 jobs=$5
shift 5
here=$(cd "$(dirname "$0")" && pwd)

fit=$(sbatch --parsable "$here/fit.sbatch" "$data" "$model" "$@")
array=$(sbatch --parsable --dependency="afterok:${fit%%;*}" --array="0-$((jobs - 1))" \
  "$here/transform.sbatch" "$data" "$model" "$output" "$rows")
echo "fit ${fit%%;*}, transform ${array%%;*}"
