#!/bin/sh
# A workflow as a Slurm job that goes on by itself when its time is over:
#   sbatch workflows/slurm.sh workflows/mnist.lua epochs=100
# Two minutes before the end Slurm sends USR1. The runner then writes a checkpoint and ends with status 75, and the job
# goes back into the queue; its next start goes on inside the epoch. The folder of the job has to be on a disk that all
# nodes share; several jobs may use it at once, and those that make the same outputs wait for each other.
#
# A sweep over an array of jobs, each with outputs of its own (name them by the parameter in the script):
#   sbatch --array=1-8 workflows/slurm.sh workflows/mnist.lua
#
# One training on several nodes, with a process for each GPU. Slurm and lavaflow have to use the same MPI: where srun does
# not by itself, SRUN="srun --mpi=pmix" says so (srun --mpi=list names what there is).
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus=8 workflows/slurm.sh workflows/data_parallel.lua
#SBATCH --job-name=lavaflow
#SBATCH --time=01:00:00
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
set -u

lavaflow=$(command -v lavaflow || echo build/release/bin/lavaflow)
workflow=${1:?expected a workflow, such as workflows/mnist.lua}
shift
[ -n "${SLURM_ARRAY_TASK_ID-}" ] && set -- "$@" "seed=$SLURM_ARRAY_TASK_ID"

launcher=
[ "${SLURM_NTASKS:-1}" -gt 1 ] && launcher=${SRUN:-srun} # which passes signals on to all processes

# In the background, since a shell answers signals between commands and while it waits.
$launcher "$lavaflow" run "$workflow" "$@" &
runner=$!
trap 'kill -USR1 $runner' USR1
trap 'kill -TERM $runner' TERM
status=-1
while :; do
  wait $runner
  status=$?
  kill -0 $runner 2>/dev/null || break # else the wait was ended by a signal
done

if [ "$status" -eq 75 ] && [ -n "${SLURM_JOB_ID-}" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
