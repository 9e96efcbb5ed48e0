#!/bin/sh
# usage: sh tests/bench/devices.sh [SECONDS]
# Builds Release and prints what moving and adding up gradients costs, between devices and between processes, each
# beside its floor, and what two devices of one thread gain over one. SECONDS: for each training, 2 unless given.
set -eu
cd "$(dirname "$0")/../.."

cmake --preset release >/dev/null
cmake --build --preset release >/dev/null

echo "# $(date -u +%Y-%m-%d), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores;" \
  "command: sh tests/bench/devices.sh $*"
echo "# between the devices of a process"
build/release/bin/lavaflow devices --bandwidth
echo
if command -v mpirun >/dev/null; then
  echo "# between two processes of this machine, through MPI"
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_plm=isolated \
    mpirun --bind-to none -n 2 build/release/tests/ranks/bench_ranks 1 10 100
else
  echo "# skipped: mpirun is not installed"
fi
echo
echo "# trainings in 8 shards: one cpu device of one thread, and two of them"
LUA_CPATH="$PWD/build/release/lib/lua/5.4/?.so;;" LAVAFLOW_THREADS=2 \
  exec lua5.4 tests/bench/devices.lua "${1:-2}" 2
