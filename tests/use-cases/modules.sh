#!/bin/sh
# A shop in modules that need each other. Each module is built as soon as the modules that it needs are built.
# usage, in a mounted project: modules.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/coordinator.sh"

module() {
    name=$1
    shift
    publish "$name" "---" "needs: [$*]" "---" "# Build $name" "Write build/$name.txt from: $*"
}
mkdir -p build
# The tasks may be written in any order.
module release "tests, docs"
module tests "backend, frontend"
module docs backend
module frontend "backend, design"
module backend "database, auth"
module auth database
module database ""
module design ""

for name in backend frontend database tests; do
    hire "worker-$name" modules-work.sh
done
finish
cat build/release.txt
