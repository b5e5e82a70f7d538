#!/bin/sh
# The work of modules.sh: build one module from the modules that it needs, which must exist.
work() {
    needs=
    while read -r first rest; do
        [ "$first" = needs: ] && needs=$rest && break
    done < "tasks/$1.md"
    needs=$(echo "$needs" | tr -d '[],')
    for need in $needs; do
        if ! [ -s "build/$need.txt" ]; then
            echo "build/$need.txt is missing"
            return 1
        fi
    done
    echo "$1 of ${needs:-nothing}" > "build/$1.txt"
    echo "built from ${needs:-nothing}"
}
