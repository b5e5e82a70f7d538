#!/bin/sh
# Fifty changes to review, and a pool of reviewers. Their results together are the report.
# usage, in a mounted project: review.sh [CHANGES [REVIEWERS]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/coordinator.sh"
changes=${1:-50} reviewers=${2:-5}

mkdir -p changes
n=0
while [ $n -lt "$changes" ]; do
    n=$((n + 1))
    # Every seventh change has a `later` comment, and the last change was never pushed.
    case $((n % 7)) in
        0) line="+    // later: check the length" ;;
        *) line="+    return total * $n;" ;;
    esac
    [ $n -eq "$changes" ] || printf '%s\n' "--- a/src/cart.c" "+++ b/src/cart.c" "$line" > "changes/$n.diff"
    publish "review-$n" "# Review changes/$n.diff" "Nothing may be left for later. Say approved, or what is wrong."
done

n=0
while [ $n -lt "$reviewers" ]; do
    n=$((n + 1))
    hire "reviewer-$n" review-work.sh
done
finish

(cd tasks/completed && grep -H wrong -- *) > report.txt || true
(cd tasks/failed && grep -H . -- *) >> report.txt || true
echo "$(count completed) changes are reviewed, $(count failed) could not be; see report.txt"
