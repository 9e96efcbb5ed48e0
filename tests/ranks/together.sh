#!/bin/sh
# usage: together.sh PROGRAM RANKS [killed|aborts]
# Runs PROGRAM in RANKS processes. When one of them ends in the given way, all must have ended soon after, and mpirun
# must not call it a success.
set -u
program=$1 ranks=$2
if ! command -v mpirun >/dev/null; then
  echo "skipped: mpirun is not installed"
  exit 77
fi
[ $# -eq 2 ] && exec mpirun -n "$ranks" "$program"

log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
start=$(date +%s)
timeout -s KILL 300 mpirun -n "$ranks" "$program" "$3" >"$log" 2>&1
status=$?
seconds=$(($(date +%s) - start))
cat "$log"
echo "mpirun: status $status after $seconds s"
failed=0
[ "$(grep -c '^pid ' "$log")" -eq "$ranks" ] || { echo "not all ranks came to the sum"; failed=1; }
[ $status -ne 0 ] || { echo "status 0"; failed=1; }
[ "$3" = killed ] || [ $status -eq 7 ] || { echo "not the status that lf_ranks_abort was given, 7"; failed=1; }
[ $seconds -le 60 ] || { echo "more than 60 s"; failed=1; }
runs() { # and is not only waiting to be collected
  case $(ps -o stat= -p "$1") in '' | Z*) return 1 ;; esac
}
for pid in $(sed -n 's/^pid //p' "$log"); do
  for wait in 1 2 3 4 5; do runs "$pid" && sleep 1; done
  ! runs "$pid" || { echo "process $pid still runs"; kill -KILL "$pid"; failed=1; }
done
exit $failed
