#!/bin/sh
# usage: [DATA=mnist.h5] sh tests/bench/run.sh [SECONDS]
# Builds Release and prints the benchmark's table: each device here beside PyTorch and scikit-learn, when a python3 has
# them (PYTHON names another one), on random images and on those of DATA, a data set file of 28 x 28 images; that they
# compute the same; whole runs; and reading files. SECONDS: for each measurement, 2 unless given. GIGABYTES: of the file
# that is streamed, 2 unless given; thrice that is needed in TMPDIR.
set -eu
data=${DATA:+$(realpath "$DATA")}
cd "$(dirname "$0")/../.."

cmake --preset release >/dev/null
cmake --build --preset release >/dev/null

python=${PYTHON:-}
for candidate in $python python3 /usr/bin/python3; do
  python=$candidate
  "$candidate" -c 'import torch' 2>/dev/null && break
done
threads=${LAVAFLOW_THREADS:-$(nproc)}
export LAVAFLOW_THREADS="$threads" LUA_CPATH="$PWD/build/release/lib/lua/5.4/?.so;;"
echo "# $(date -u +%Y-%m-%d), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores," \
  "$(uname -sm); command: ${DATA:+DATA=$DATA }sh tests/bench/run.sh $*"
echo "# data: random images, bytes of 0 to 255, of which 0.4 % are zeros"
if [ -n "$data" ]; then
  zeros=$("$python" -c 'import h5py, sys; x = h5py.File(sys.argv[1])["train/x"]; print(x.shape[0], "rows, of which",
    f"{100 * (x[:] == 0).mean():.1f} % of the bytes are zeros")' "$data" 2>/dev/null || echo "")
  echo "# data: MNIST, $DATA${zeros:+, $zeros}"
fi
failed=0
# PyTorch on one thread: its rounding with two, through Adam, takes it further from itself than we are.
lua5.4 tests/bench/agree.lua "$python" 1 ${data:+"$data"} || failed=1
lua5.4 tests/bench/bench.lua "$python" "$threads" "${1:-2}" ${data:+"$data"}
echo
lua5.4 tests/bench/whole.lua "$PWD/build/release/bin/lavaflow" "$python" "$threads" "${data:--}"
echo
lua5.4 tests/bench/input.lua "$python" "${1:-2}" "${GIGABYTES:-2}"
exit $failed
