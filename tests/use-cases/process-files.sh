#!/bin/sh
# Many files, one task for each, and a pool of workers.
# usage, in a mounted project: process-files.sh [FILES [WORKERS]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/coordinator.sh"
files=${1:-1000} workers=${2:-8}

mkdir -p input output
n=0
while [ $n -lt "$files" ]; do
    n=$((n + 1))
    printf '%s\n' "$n" $((2 * n)) $((3 * n)) > "input/$n.txt"
    publish "file-$n" "# Add up input/$n.txt" "Write the sum of its lines to output/$n.txt."
done

n=0
while [ $n -lt "$workers" ]; do
    n=$((n + 1))
    hire "worker-$n" process-files-work.sh
done
finish
echo "$(count completed) of $files files are processed"
