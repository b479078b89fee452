#!/usr/bin/env bash
# Checks the units with systemd's own tools and the generator on sample command lines.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# `verify` wants the programs to be there: a tree with stand-ins at their paths, units beside them.
root=$work/root
mkdir -p "$root"/{bin,etc/systemd/system,etc/speediso,usr/sbin,usr/bin,usr/lib/speediso/tasks,usr/lib/systemd/system}
for program in usr/sbin/speediso-agent usr/bin/speediso-controller usr/lib/speediso/tasks/wipe usr/lib/speediso/shells \
    usr/bin/ssh-keygen bin/sh; do
    printf '#!/bin/sh\n' >"$root/$program"
    chmod +x "$root/$program"
done
touch "$root/etc/speediso/controller.env"
cp /lib/systemd/system/*.target "$root/usr/lib/systemd/system/"
cp ./*.service "$root/etc/systemd/system/"
cp "$root/etc/systemd/system/speediso@.service" "$root/etc/systemd/system/speediso@wipe.service"
cp "$root/etc/systemd/system/speediso-shell@.service" "$root/etc/systemd/system/speediso-shell@tty2.service"
mkdir "$root/etc/systemd/system/speediso@wipe.service.d"
cp task-output.conf "$root/etc/systemd/system/speediso@wipe.service.d/"
complaints=$(systemd-analyze verify --root="$root" --man=no --recursive-errors=no \
    speediso-agent.service speediso-controller.service speediso@wipe.service speediso-hostkey.service \
    speediso-shells.service speediso-shell@tty2.service 2>&1) || true
if [ -n "$complaints" ]; then
    echo "$complaints" >&2
    exit 1
fi

# The controller faces the network: what it may do stays little. The agent's work is the whole machine, so a figure says
# nothing there.
exposure=$(systemd-analyze security --offline=yes --root="$root" --no-pager speediso-controller.service |
    sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p')
if [ -z "$exposure" ] || awk -v found="$exposure" 'BEGIN { exit !(found > 2.0) }'; then
    echo "controller: exposure $exposure of 10 by systemd-analyze security, at most 2.0 is wanted" >&2
    exit 1
fi

check() { # command line, expected units
    printf '%s\n' "$1" >"$work/cmdline"
    rm -rf "$work/out" && mkdir "$work/out" && : >"$work/kmsg"
    SPEEDISO_CMDLINE=$work/cmdline SPEEDISO_TASKS=$work/tasks SPEEDISO_KMSG=$work/kmsg \
        SPEEDISO_AGENT=$agent ./speediso-generator "$work/out"
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
said() { # what the kernel's log got of the last one
    if ! grep -qF "$1" "$work/kmsg"; then
        echo "generator: expected '$1' to be said, got '$(cat "$work/kmsg")'" >&2
        exit 1
    fi
}
agent=$work/none
check 'ro quiet' ''
check 'SPEEDISO=wipe' 'speediso@wipe.service'
check 'systemd.setenv=SPEEDISO=inventory,wipe' 'speediso@inventory.service speediso@wipe.service'
grep -qx 'After=speediso@inventory.service' "$work/out/speediso@wipe.service.d/order.conf"
check 'SPEEDISO=inventory,format' ''
said 'format is not in'
check 'SPEEDISO=inventory,burnin' ''
said 'burnin is not in'
check 'SPEEDISO=../wipe' ''
check 'SPEEDISO=wipe,wipe' ''
said 'wipe is named twice'
check 'SPEEDISO=* SPEEDISO=inventory' 'speediso@inventory.service'
# With the agent in the image its profiles are its own, but for those that lie here.
agent=/bin/sh
check 'SPEEDISO=burnin' ''
check 'SPEEDISO=wipe' 'speediso@wipe.service'
check 'SPEEDISO=wipe,burnin' ''
said "some are tasks of this image and some the agent's own"
echo "systemd: units and generator are good"
