#!/bin/sh
# The work of process-files.sh: add up the lines of one file.
work() {
    number=${1#file-} sum=0
    while read -r line; do
        sum=$((sum + line))
    done < "input/$number.txt"
    echo "$sum" > "output/$number.txt"
    echo "the sum is $sum"
}
