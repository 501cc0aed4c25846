#!/usr/bin/env bash
# Runs every fuzz target of the named modules for FUZZTIME each. A count
# (20000x) is steadier than a time: go test may call its own deadline a failure
# (golang/go#75804).
set -euo pipefail
go=${GO:-go}
found=0
for module in "$@"; do
  while IFS=: read -r file target; do
    found=$((found + 1))
    echo "fuzz $target in $(dirname "$file")"
    "$go" test -run '^$' -fuzz "^${target}\$" -fuzztime "${FUZZTIME:-20000x}" "./$(dirname "$file")"
  done < <(grep -roE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' "$module" | sed 's/func //' | sort)
done
if [ "$found" -eq 0 ]; then
  echo "no fuzz target in: $*" >&2
  exit 1
fi
