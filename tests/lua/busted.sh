#!/bin/sh
# busted.sh LUA BUSTED SPEC: runs a spec file in a folder of its own. Exit status 77, a skip, if all its tests are pending.
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
"$1" "$2" --no-auto-insulate -o plainTerminal "$3" >output 2>&1
status=$?
cat output
if [ $status -eq 0 ] && grep -q '^0 successes .* [1-9][0-9]* pending' output; then
  exit 77
fi
exit $status
