#!/bin/sh
# The work of growing.sh: something that takes a moment.
work() {
    sleep 0.05
    echo "$1 took a moment"
}
