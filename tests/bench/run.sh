#!/bin/sh
# usage: sh tests/bench/run.sh [SECONDS]
# Builds Release and prints the benchmark's table: each device here beside PyTorch, when a python3 has it
# (PYTHON names another one). SECONDS: for each measurement, 2 unless given.
set -eu
cd "$(dirname "$0")/../.."

cmake --preset release >/dev/null
cmake --build --preset release >/dev/null

python=${PYTHON:-}
for candidate in $python python3 /usr/bin/python3; do
  python=$candidate
  "$candidate" -c 'import torch' 2>/dev/null && break
done
threads=${LAVAFLOW_THREADS:-$(nproc)}
echo "# $(date -u +%Y-%m-%d), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores," \
  "$(uname -sm); command: sh tests/bench/run.sh $*"
LUA_CPATH="$PWD/build/release/lib/lua/5.4/?.so;;" exec lua5.4 tests/bench/bench.lua "$python" "$threads" "${1:-2}"
