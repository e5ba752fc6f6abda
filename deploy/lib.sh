# What deploy/dev, deploy/test, deploy/bench and .ci/run share. Sourced, not run. Everything said goes to stderr.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

say() { printf '==> %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs a command as root: as we are, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root: $*"
    fi
}

apt_install() {
    say "installing with apt-get: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >&2
    # The last two: a settings file that is there already (we may have made one) stays, and nothing is asked.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" </dev/null >&2
}

ensure_cargo() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup, see https://rustup.rs"
}

ensure_cc() {
    if command -v cc >/dev/null; then return; fi
    case $(uname -s) in
        Darwin) die "the C compiler is missing: run xcode-select --install" ;;
        *)
            command -v apt-get >/dev/null || die "the C compiler cc is missing: install gcc"
            apt_install gcc libc6-dev
            ;;
    esac
}

# True if this folder holds the server binaries of PostgreSQL 14 to 18.
is_postgres_bin() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 1
    local major
    major=$("$1/postgres" --version 2>/dev/null | sed -n 's/^.*(PostgreSQL) \([0-9]*\).*$/\1/p')
    [ -n "$major" ] && [ "$major" -ge 14 ] && [ "$major" -le 18 ]
}

# The same places, in the same order, as `latchkey dev` looks in.
have_postgres() {
    if [ -n "${LATCHKEY_POSTGRES_BIN:-}" ]; then
        is_postgres_bin "$LATCHKEY_POSTGRES_BIN" ||
            die "LATCHKEY_POSTGRES_BIN=$LATCHKEY_POSTGRES_BIN holds no PostgreSQL 14 to 18 server"
        return
    fi
    local folder
    local on_path
    IFS=: read -r -a on_path <<<"$PATH"
    for folder in "${on_path[@]}" /usr/lib/postgresql/{18..14}/bin \
        /opt/homebrew/opt/postgresql@{18..14}/bin /usr/local/opt/postgresql@{18..14}/bin \
        /opt/homebrew/opt/postgresql/bin /usr/local/opt/postgresql/bin; do
        if is_postgres_bin "$folder"; then return; fi
    done
    return 1
}

# Debian's package makes a cluster and starts it; we want the binaries alone. An existing setting stays as it is.
keep_debian_from_making_a_cluster() {
    local settings=/etc/postgresql-common/createcluster.conf
    if [ -e "$settings" ]; then return; fi
    as_root mkdir -p /etc/postgresql-common
    printf '# Only the server binaries were wanted here.\ncreate_main_cluster = false\n' |
        as_root tee "$settings" >/dev/null
}

ensure_postgres() {
    if have_postgres; then return; fi
    say "PostgreSQL's server binaries (14 to 18) are missing"
    case $(uname -s) in
        Darwin)
            command -v brew >/dev/null || die "install Homebrew, or PostgreSQL 14 to 18 and set LATCHKEY_POSTGRES_BIN"
            say "installing with brew: postgresql@18"
            brew install postgresql@18 </dev/null >&2
            ;;
        *)
            command -v apt-get >/dev/null ||
                die "install a PostgreSQL 14 to 18 server, and set LATCHKEY_POSTGRES_BIN to its bin folder"
            keep_debian_from_making_a_cluster
            apt_install postgresql
            ;;
    esac
    have_postgres || die "PostgreSQL was installed, but no version from 14 to 18 is there"
}

# Looks for processes that are left behind; minimal containers lack it.
ensure_ps() {
    if command -v ps >/dev/null; then return; fi
    command -v apt-get >/dev/null || die "ps is missing: install procps"
    apt_install procps
}

ensure_all() {
    ensure_cargo
    ensure_cc
    ensure_postgres
}
