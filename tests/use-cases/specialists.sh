#!/bin/sh
# Tasks that only some workers can do, and specialists for them. No coordinator assigns the tasks.
# usage, in a mounted project: specialists.sh [TASKS_OF_EACH_SORT]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/coordinator.sh"
tasks=${1:-5}

mkdir -p work
n=0
while [ $n -lt "$tasks" ]; do
    n=$((n + 1))
    publish "api-$n" "---" "requires: [backend]" "---" "# Endpoint $n"
    publish "page-$n" "---" "requires: [frontend]" "---" "# Page $n"
    publish "check-$n" "---" "requires: [backend, testing]" "---" "# Check endpoint $n"
    publish "text-$n" "# Text $n" "Anybody can do this."
done

hire worker-backend specialists-work.sh backend
hire worker-frontend specialists-work.sh frontend
hire worker-testing specialists-work.sh "backend testing"
hire worker-anything specialists-work.sh
finish
echo "$(count completed) tasks are done"
