# Waits until its stdin closes, which is when the owner, its initdb and the guard are all gone; then ends a postmaster
# that lost its guard, and removes the folder if asked to.
# Arguments: the data folder, the signal that stops postgres, `yes` to remove the folder.
# stdout: the folder's lock, so that it stays taken until the work here is done. Exit status 3: postgres would not stop.

trap '' HUP INT QUIT TERM
data_dir=$1 signal=$2 remove=$3
cluster=$data_dir/postgres/data
while read -r _; do :; done

# True, with $pid set, while a postmaster of exactly this cluster runs; a reused process id is not one.
postmaster_runs() {
    pid=
    [ -r "$cluster/postmaster.pid" ] || return 1
    read -r pid <"$cluster/postmaster.pid"
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    if [ -r "/proc/$pid/cmdline" ]; then
        command_line=$(tr '\0' ' ' <"/proc/$pid/cmdline")
    else
        command_line=$(ps -o args= -p "$pid")
    fi
    case $command_line in *"postgres -D $cluster "*) return 0 ;; *) return 1 ;; esac
}

seconds=0
while postmaster_runs; do
    case $seconds in
        0) kill -"$signal" "$pid" ;;
        10) kill -QUIT "$pid" ;;
        15) exit 3 ;;
    esac
    sleep 1
    seconds=$((seconds + 1))
done

if [ "$remove" = yes ]; then
    # Backends of a killed postmaster may live for another moment and write.
    for _ in 1 2 3 4 5; do
        rm -rf "$data_dir/postgres" && break
        sleep 1
    done
    for role in superuser latchkey_owner latchkey_app; do
        rm -f "$data_dir/$role.password" "$data_dir/$role.new.password"
    done
    rm -f "$data_dir/latchkey.lock"
    # Only what was made here is removed: a folder that holds anything else stays.
    rmdir "$data_dir"
fi
exit 0
