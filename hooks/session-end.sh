#!/bin/sh
# The hook for the end of a session: gives back the worker's claims, so that other workers can take the tasks at once.
# CREWFS_KEEP_CLAIMS, set to any value, keeps the claims. Usage: session-end.sh CLIENT
# May assume: nothing. Must never: delay the end of a session; give anything back while the session continues.

# shellcheck disable=SC2317 # desk_ask calls by name
# shellcheck source-path=SCRIPTDIR source=desk.sh
command -v desk_ask >/dev/null || . "$(dirname "$0")/desk.sh"

leave() {
    desk_find || return
    facts=$(desk_status <workers/self/status)
    facts_of worker "$facts"
    give_back "$facts"
}

read_input
# After these reasons the same agent continues with another conversation.
case $(input_member reason) in clear | resume) exit 0 ;; esac
[ -z "${CREWFS_KEEP_CLAIMS:-}" ] || exit 0
worker=$(desk_ask leave)
kept=$(kept_in)
[ -z "$kept" ] || [ -z "$worker" ] || rm -f "$kept/$(session_key "$worker")"
exit 0
