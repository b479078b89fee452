#!/usr/bin/env bash
# Checks the units with systemd's own tools and the generator on sample command lines.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# `verify` wants the programs to be there: a tree with stand-ins at their paths, units beside them.
root=$work/root
mkdir -p "$root"/{etc/systemd/system,etc/speediso,usr/sbin,usr/bin,usr/lib/speediso/tasks,usr/lib/systemd/system}
for program in usr/sbin/speediso-agent usr/bin/speediso-controller usr/lib/speediso/tasks/wipe; do
    printf '#!/bin/sh\n' >"$root/$program"
    chmod +x "$root/$program"
done
touch "$root/etc/speediso/controller.env"
cp /lib/systemd/system/*.target "$root/usr/lib/systemd/system/"
cp ./*.service "$root/etc/systemd/system/"
cp "$root/etc/systemd/system/speediso@.service" "$root/etc/systemd/system/speediso@wipe.service"
complaints=$(systemd-analyze verify --root="$root" --man=no --recursive-errors=no \
    speediso-agent.service speediso-controller.service speediso@wipe.service 2>&1) || true
if [ -n "$complaints" ]; then
    echo "$complaints" >&2
    exit 1
fi

check() { # command line, expected units
    printf '%s\n' "$1" >"$work/cmdline"
    rm -rf "$work/out" && mkdir "$work/out"
    SPEEDISO_CMDLINE=$work/cmdline SPEEDISO_TASKS=$work/tasks SPEEDISO_KMSG=/dev/stderr \
        ./speediso-generator "$work/out" 2>/dev/null
    local got
    got=$(cd "$work/out" && find . -name '*.service' -printf '%f\n' | sort | xargs)
    if [ "$got" != "$2" ]; then
        echo "generator: for '$1' expected '$2', got '$got'" >&2
        exit 1
    fi
}
mkdir "$work/tasks"
for name in wipe inventory; do
    printf '#!/bin/sh\n' >"$work/tasks/$name" && chmod +x "$work/tasks/$name"
done
check 'ro quiet' ''
check 'SPEEDISO=wipe' 'speediso@wipe.service'
check 'systemd.setenv=SPEEDISO=inventory,wipe' 'speediso@inventory.service speediso@wipe.service'
check 'SPEEDISO=inventory,format' ''
check 'SPEEDISO=../wipe' ''
check 'SPEEDISO=* SPEEDISO=inventory' 'speediso@inventory.service'
echo "systemd: units and generator are good"
