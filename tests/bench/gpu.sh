#!/bin/sh
# usage: sh tests/bench/gpu.sh [DEVICE…]
# Builds Release and prints GPUs' microseconds a step beside PyTorch and JAX on the same card, when a python3 has them
# (PYTHON names another one). The devices are cuda:0 and vulkan:0 unless given.
set -eu
cd "$(dirname "$0")/../.."

cmake --preset release -DLAVAFLOW_CUDA=ON >/dev/null
cmake --build --preset release >/dev/null

echo "# $(date -u +%Y-%m-%d), $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)," \
  "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); command: sh tests/bench/gpu.sh $*"
LUA_CPATH="$PWD/build/release/lib/lua/5.4/?.so;;" exec lua5.4 tests/bench/gpu.lua "${PYTHON:-python3}" "$@"
