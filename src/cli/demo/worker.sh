#!/bin/sh
# A worker: claim the best task, do it, say what was done; stop when should-stop is empty.
while [ -n "$(cat tasks/workers/self/should-stop)" ]; do
    if ! touch tasks/claim/next 2>/dev/null; then
        sleep 1
        continue
    fi
    title=$(sed -n 's/^# Task: //p' tasks/workers/self/task)
    id=$(sed -n 's/^  "task": "\(.*\)",$/\1/p' tasks/claim/next)
    echo "read the instructions" > "tasks/claim/$id"
    sleep 2
    case $id in
        task-1-auth) echo "POST /api/auth/login -> token" > src/auth.txt ;;
        task-2-database) echo "table users (name, password hash)" > src/database.txt ;;
        task-3-tests) cat src/auth.txt src/database.txt > tests/results.txt && echo "both found" >> tests/results.txt ;;
    esac
    echo "wrote the files" > "tasks/claim/$id"
    sleep 2
    echo "$title: done by $CREWFS_WORKER" > "tasks/completed/$id"
done
