#!/bin/sh
# The work of review.sh: read one change, and judge it.
work() {
    change=changes/${1#review-}.diff
    if ! [ -r "$change" ]; then
        echo "there is no $change"
        return 1
    fi
    verdict=approved
    while read -r line; do
        case $line in
            *later:*) verdict="wrong: ${line#+}" ;;
        esac
    done < "$change"
    echo "$verdict"
}
