#!/bin/sh
# usage: together.sh PROGRAM DEVICE
# Trains in several processes, and compares the weights' digests with those of one.
set -u
program=$1 device=$2 failed=0
if ! command -v mpirun >/dev/null; then
  echo "skipped: mpirun is not installed"
  exit 77
fi
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export SAYS="$folder/says" NUMBERS="$folder/numbers"

# train RANKS [NAME=VALUE…]: what the first process says; the shards and the rows that each process had.
train() {
  ranks=$1
  shift
  rm -f "$SAYS" "$NUMBERS"
  timeout 300 env "$@" mpirun -n "$ranks" "$program" "$device" >"$folder/log" 2>&1
  status=$?
  said=$(cat "$SAYS" 2>/dev/null)
  shards=$(sed -n 1p "$NUMBERS" 2>/dev/null)
  rows=$(sed -n 2p "$NUMBERS" 2>/dev/null)
}

# expect WHAT SAID: that it is what was said.
expect() {
  [ "$said" = "$2" ] && { echo "ok: $1"; return; }
  echo "failed: $1: $said, expected $2"
  cat "$folder/log"
  failed=1
}

env "$program" "$device" >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
one=$(cat "$SAYS")
case $one in *[!0-9a-f]* | "") echo "no digest: $one"; exit 1 ;; esac

for ranks in 1 2 4; do
  train "$ranks" DEVICES=1
  expect "$ranks processes give the bits of one" "$one"
done
train 3 DEVICES=2
expect "3 processes of 2 devices give the bits of one" "$one"

said=$rows
expect "rows that stay on the devices are read once by all processes together" "350 350 303"

for ranks in 2 3; do
  train "$ranks" WINDOW=32768
  expect "$ranks processes that read their own rows alone give the bits of one" "$one"
done
said=$((${rows:+$(echo "$rows" | tr ' ' +)}))
expect "in each of 3 epochs every row is read by one process" $((3 * 1003))

train 3 NARROW=1
expect "rows that one process cannot hold at once pass through the windows of all" "$one"

for weighted in 1 2; do
  train 1 WEIGHTED=$weighted
  one_weighted=$said
  [ "$one_weighted" != "$one" ] || { echo "failed: weights change nothing"; failed=1; }
  train 3 NARROW=2 WEIGHTED=$weighted
  expect "rows with weights pass through the windows of all, too" "$one_weighted"
  for window in 0 32768; do
    for ranks in 2 4; do
      train "$ranks" WEIGHTED=$weighted WINDOW=$window
      expect "$ranks processes give the bits of one with weights, window $window" "$one_weighted"
      said=$((${rows:+$(echo "$rows" | tr ' ' +)}))
      expect "each row with its weight is read by one process" $((window ? 3 * 1003 : 1003))
    done
    train 3 WEIGHTED=$weighted WINDOW=$window LAVAFLOW_HAND_OUT=4 DEVICES=2
    expect "any hand-out changes no bit with weights, window $window" "$one_weighted"
  done
done

for window in 0 32768; do
  for seed in 1 2 3; do
    train $((seed + 1)) LAVAFLOW_HAND_OUT=$seed DEVICES=2 WINDOW=$window
    expect "any hand-out between $((seed + 1)) processes changes no bit, window $window" "$one"
  done
  train 2 SLOW=1 WINDOW=$window
  expect "a slow process changes no bit, window $window" "$one"
  case $shards in
    "5 3" | "6 2" | "7 1") echo "ok: a slow process works on fewer shards: $shards" ;;
    *) said=$shards; expect "a slow process works on fewer shards, window $window" "5 3, 6 2 or 7 1" ;;
  esac
  train 2 SLOW=1 EVEN=1 WINDOW=$window
  said=$shards
  expect "shards are divided evenly on request, window $window" "4 4"
done

train 1 TEACHER=1
taught=$said
[ "$taught" != "$one" ] || { echo "failed: a teacher changes nothing"; failed=1; }
for window in 0 32768; do
  train 3 TEACHER=1 WINDOW=$window
  expect "3 processes that learn from a teacher give the bits of one, window $window" "$taught"
done
train 3 TEACHER=1
said=${rows#* }
expect "one process alone asks the teacher" "350 303"

for reads in 1 3; do
  train 3 CUT=1 READS=$reads WINDOW=$((reads > 1 ? 32768 : 0))
  case $said in
    "process 1: "*"data.h5: the file is cut short") echo "ok: what one process cannot read is told by all" ;;
    *) expect "what one process cannot read is told by all" "process 1: …/data.h5: the file is cut short" ;;
  esac
  [ $status -ne 124 ] || { echo "failed: not all have ended"; failed=1; }
done

for lacks in 0 2; do
  train 3 LACKS=$lacks DEVICES=2 WEIGHTED=2 WINDOW=$((lacks * 16384))
  expect "what process $lacks has no memory for is told by all" told
done

# Every process holds shards that are no neighbourhood, so that another order has other bits.
train 3 FAST=1
case $said in
  "$one" | *[!0-9a-f]* | "") expect "3 processes with fast sums" "another digest than that of exact ones" ;;
  *) echo "ok: 3 processes with fast sums have bits of their own" ;;
esac

train 2 LAVAFLOW_FAULT="$device@step=30" DEVICES=2
expect "a device lost in each of 2 processes changes no bit" "$one"

train 3 CHECKPOINT="$folder/c.h5" STOP_AFTER=37
case $said in *interrupted*) echo "ok: a signal to one process stops all" ;; *) expect "a signal stops all" interrupted ;; esac
train 2 RESUME="$folder/c.h5"
expect "2 processes go on where 3 were stopped" "$one"
env RESUME="$folder/c.h5" "$program" "$device" >"$folder/log" 2>&1
said=$(cat "$SAYS")
expect "one process goes on where 3 were stopped" "$one"

rm -f "$folder/c.h5"
train 3 CHECKPOINT="$folder/c.h5" STOP_AFTER=45 KILLED=1
[ $status -ne 0 ] && [ $status -ne 124 ] || { echo "failed: a killed process left status $status"; failed=1; }
train 3 RESUME="$folder/c.h5"
expect "after a process was killed, all go on from the checkpoint" "$one"

timeout 300 mpirun -n 1 env LAVAFLOW_FAULT="$device@step=30" "$program" "$device" : -n 1 "$program" "$device" \
  >"$folder/log" 2>&1
status=$?
[ $status -ne 0 ] && [ $status -ne 124 ] || { echo "failed: a process without a device left status $status"; failed=1; }

train 3 DIFFERENT=2
case $said in
  "process 2 runs another training: it has seed 6, but process 0 has seed 5") echo "ok: other options are told" ;;
  *) expect "other options are told" "process 2 …: it has seed 6, but process 0 has seed 5" ;;
esac
exit $failed
