# What the scripts beside this file share. Sourced, not run.

# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

readonly buf_version=1.75.0
tools=${XDG_CACHE_HOME:-$HOME/.cache}/latchkey-tools
# Ours first: their versions are pinned.
PATH=$tools/bin:$tools/node_modules/.bin:$PATH

# The value of a key of Cargo.toml's [package].
package() { sed -n "s/^$1 = \"\(.*\)\"$/\1/p" "$root/Cargo.toml" | head -n 1; }

# The names of [features], but for the default set.
features() { sed -n '/^\[features\]$/,/^\[dependencies\]$/s/^\([a-z-]*\) = .*/\1/p' "$root/Cargo.toml" | grep -vx default; }

ensure_buf() {
    if [ "$(buf --version 2>/dev/null)" = "$buf_version" ]; then return; fi
    if ! command -v npm >/dev/null; then
        command -v apt-get >/dev/null || die "npm is missing (buf comes from it): install Node.js"
        apt_install nodejs npm
    fi
    say "installing buf $buf_version"
    npm install --prefix "$tools" --no-fund --no-audit --loglevel=error "@bufbuild/buf@$buf_version" >&2
    buf --version >/dev/null || die "buf was installed and does not run"
}
