#!/bin/sh
# A stop hook for agent programs: prints what workers/self/should-stop says, which is what Claude Code, Codex and Gemini
# take as the answer of a stop hook. Run it in the project's directory.
# May assume: nothing. Must never: keep an agent from stopping because the mount is gone or does not answer.
tasks=${CREWFS_TASKS:-tasks}
[ -e "$tasks/queue.json" ] || exit 0
# A mount that hangs would hang us: the child that reads is left behind.
timeout 1 cat "$tasks/workers/self/should-stop" 2>/dev/null
exit 0
