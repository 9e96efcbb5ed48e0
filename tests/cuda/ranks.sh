#!/bin/sh
# usage: ranks.sh PROGRAM RANKS DEVICES
# Trains with DEVICES in each of RANKS processes, which compare their results with what one process has on one device.
set -u
program=$1 ranks=$2 devices=$3
if ! command -v mpirun >/dev/null; then
  echo "skipped: mpirun is not installed"
  exit 77
fi
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder"
one=$("$program" cuda:0 1 2>"$folder/log" | grep '^[0-9a-f]* [0-9.]*$') || { cat "$folder/log"; exit 1; }
# What it is: two words.
timeout -s KILL 240 mpirun -n "$ranks" "$program" cuda:0 "$devices" $one 2>&1
status=$?
left=$(find "$folder" -name 'lavaflow-nccl-*')
[ -z "$left" ] || { echo "left behind: $left"; exit 1; }
exit $status
