#!/bin/sh
# The work of specialists.sh: write the worker's name.
work() {
    sleep 0.05
    echo "$CREWFS_WORKER" > "work/$1.txt"
    echo "done as ${CAPABILITIES:-nobody special}"
}
