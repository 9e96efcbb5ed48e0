#!/bin/sh
# usage: sh tests/bench/runner.sh [TIMES]
# What the runner costs beside the work, process start to exit, in milliseconds: medians of TIMES runs, 11 unless given,
# with the least and the most. Beside it `lua5.4` and `python3` doing nothing.
set -eu
cd "$(dirname "$0")/../.."

cmake --preset release >/dev/null
cmake --build --preset release >/dev/null

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/one.lua" <<'LUA'
local lf = require "lavaflow"
lf.step "one" { run = function(s) s:metric("value", 1) end }
LUA
cat > "$folder/fifty.lua" <<'LUA'
local lf = require "lavaflow"
for i = 1, 50 do
  lf.step("step" .. i) {
    output = { model = ("out/%d.h5"):format(i) }, run = function(s) lf.mlp { 4, i, 3, seed = i }:save(s.output.model) end,
  }
end
LUA
lavaflow=$PWD/build/release/bin/lavaflow
cd "$folder"
"$lavaflow" run fifty.lua -q

# time_of NAME COMMAND…
time_of() {
  name=$1
  shift
  python3 - "$times" "$name" "$@" <<'PY'
import subprocess, sys, time
times, name, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
taken = []
for _ in range(times):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    taken.append(1e3 * (time.perf_counter() - start))
taken.sort()
print(f"{name:44s} {taken[len(taken) // 2]:7.1f} ({taken[0]:.1f} to {taken[-1]:.1f})")
PY
}
times=${1:-11}
echo "# $(date -u +%Y-%m-%d), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores;" \
  "command: sh tests/bench/runner.sh $*; milliseconds"
time_of "lua5.4, nothing" lua5.4 -e ""
time_of "python3, nothing" python3 -c ""
time_of "one step without a training, cpu" "$lavaflow" run one.lua --fresh -q --device cpu
time_of "one step that is up to date" "$lavaflow" run one.lua -q
time_of "50 steps that are up to date" "$lavaflow" run fifty.lua -q
