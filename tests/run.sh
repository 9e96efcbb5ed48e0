#!/bin/sh
# Installs what is missing, builds with warnings as errors, once plainly and once with sanitizers, and runs every test in
# both. The last line counts them; the exit status is 0 if none failed. -DLAVAFLOW_LONG_TESTS=ON adds what takes longer.
set -u
cd "$(dirname "$0")/.." || exit 1
. workflows/setup.sh

passed=0 failed=0 skipped=0

# count REPORT NAME: the value of an attribute of the report's test suite.
count() {
  sed -n "s/^[[:space:]]*$2=\"\([0-9]*\)\".*/\1/p; s/.*<testsuite .*[[:space:]]$2=\"\([0-9]*\)\".*/\1/p" "$1" | head -n 1
}

# run_tests FOLDER OPTION…: builds and runs the tests there; adds to the counts. A build that fails is one failure.
run_tests() {
  folder=$1
  shift
  echo "== $folder"
  if ! build "$folder" all -DLAVAFLOW_TESTS=ON -DLAVAFLOW_WERROR=ON "$@"; then
    failed=$((failed + 1))
    return
  fi
  report=$(pwd)/$folder/report.xml
  rm -f "$report"
  ctest --test-dir "$folder" -j "$(nproc)" --output-on-failure --no-label-summary --output-junit "$report"
  if [ ! -s "$report" ]; then
    failed=$((failed + 1))
    return
  fi
  bad=$(count "$report" failures)
  none=$(($(count "$report" skipped) + $(count "$report" disabled)))
  failed=$((failed + bad))
  skipped=$((skipped + none))
  passed=$((passed + $(count "$report" tests) - bad - none))
}

install_missing $BUILD_PACKAGES $TEST_PACKAGES || exit $?
run_tests build/release -DCMAKE_BUILD_TYPE=Release -DLAVAFLOW_CUDA=ON
run_tests build/sanitize -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLAVAFLOW_SANITIZE=ON
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
