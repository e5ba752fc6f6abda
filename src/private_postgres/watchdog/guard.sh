# Runs PostgreSQL and stops it when the lifeline (stdin) closes, however the process at its other end ended.
# Arguments: the postgres program, the signal that stops it, then the arguments of postgres.
# stdin: the lifeline. stdout: held open until everything here is gone; the janitor waits for that. stderr: the log.

# Ctrl-C, a closed terminal and a polite kill are for the process at the other end; it closes the lifeline.
trap '' HUP INT QUIT TERM
postgres=$1 signal=$2
shift 2
exec 3<&0 </dev/null

# postgres sets its own handlers for the signals ignored above.
"$postgres" "$@" >&2 3<&- &
pid=$!

(
    while read -r _ <&3; do :; done
    kill -"$signal" "$pid"
    seconds=0
    while kill -0 "$pid" && [ "$seconds" -lt 15 ]; do
        sleep 1
        # Again: one that comes before postgres has set its handlers is ignored, as it was here.
        kill -"$signal" "$pid"
        seconds=$((seconds + 1))
    done
    kill -QUIT "$pid"
) 2>/dev/null &
watcher=$!

wait "$pid"
status=$?
# Not a plain kill: the watcher ignores that. Else it would signal a process id that may be another's by then.
kill -KILL "$watcher" 2>/dev/null
exit "$status"
