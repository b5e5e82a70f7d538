#!/bin/sh
# The work of growing.sh: takes a moment.
work() {
    sleep 0.05
    echo "$1 took a moment"
}
