#!/bin/sh
# Installs what is missing, builds, and runs a workflow:
#   sh workflows/run.sh [WORKFLOW.lua] [options of `lavaflow run`]
# The workflow is digits.lua and the device vulkan:0 unless given. Relative paths in a workflow start at the project.
set -u
here=$(pwd)
cd "$(dirname "$0")/.." || exit 1
. workflows/setup.sh

install_missing $BUILD_PACKAGES || exit $?
# A first configuration leaves out the tests, which need more packages; a later one keeps what is there.
first=
if [ ! -e build/release/CMakeCache.txt ]; then
  echo "building in build/release: about a minute, this first time"
  first="-DCMAKE_BUILD_TYPE=Release -DLAVAFLOW_TESTS=OFF"
  # CUDA's kernels take nvcc a minute more; without the driver nothing could run them. tests/run.sh builds them.
  ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1' || first="$first -DLAVAFLOW_CUDA=OFF"
fi
build build/release lavaflow_core $first || exit 1

workflow=workflows/digits.lua
case ${1-} in
  *.lua)
    workflow=$1
    case $workflow in
      /*) ;;
      *) [ -e "$here/$workflow" ] && workflow=$here/$workflow ;;
    esac
    shift
    ;;
esac
device="--device vulkan:0"
for argument in "$@"; do
  case $argument in
    --device | --device=*) device= ;;
  esac
done
exec build/release/bin/lavaflow run "$workflow" $device "$@"
