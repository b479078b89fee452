#!/usr/bin/env bash
# Runs a command with what it takes to compile for another machine: `cross.sh aarch64 cargo build ...`.
# usage: cross.sh aarch64 [COMMAND [ARGUMENT...]]
#
# Debian has a compiler for that machine with glibc and a musl for it without a compiler: the two are brought together in
# target/cross, as the package musl-tools does it for the machine itself. Nothing else of the system is changed but that
# the missing packages are installed (deps.sh).
set -euo pipefail

root=$(cd "$(dirname "$0")" && pwd)
arch=${1:?which machine to compile for: aarch64}
shift
[ "$arch" = aarch64 ] || { echo "cross.sh: $arch: only aarch64 is known" >&2; exit 2; }
debian=arm64
gcc=aarch64-linux-gnu-gcc
out=$root/target/cross/$arch

"$root/deps.sh" cross
triple=$arch-unknown-linux-musl
rustc --print target-libdir --target "$triple" | xargs test -d || rustup target add "$triple"

key=$(sha256sum "$0" | cut -c1-16)-$(dpkg-query -W -f '${Version}' musl-dev)
if [ "$(cat "$out/.key" 2>/dev/null)" != "$key" ]; then
    echo "cross: musl for $arch from Debian's package"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # The system's own sources and keys, the other machine's lists.
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    touch "$work/status"
    apt=(-qq -o "APT::Architecture=$debian" -o "APT::Architectures=$debian" -o "Dir::State::Lists=$work/lists"
        -o "Dir::State::status=$work/status" -o "Dir::Cache=$work" -o "APT::Sandbox::User=$(id -un)")
    apt-get "${apt[@]}" update
    (cd "$work" && apt-get "${apt[@]}" download "musl-dev:$debian")
    dpkg-deb -x "$work"/musl-dev_*.deb "$work/root"
    rm -rf "$out" && mkdir -p "$out/include"
    cp -r "$work/root/usr/include/$arch-linux-musl/." "$out/include/"
    cp -r "$work/root/usr/lib/$arch-linux-musl" "$out/lib"
    for headers in linux asm asm-generic mtd; do
        # musl has none of the kernel's.
        ln -s "/usr/$arch-linux-gnu/include/$headers" "$out/include/$headers"
    done
    sed -e "s|/usr/include/x86_64-linux-musl|$out/include|g" -e "s|/usr/lib/x86_64-linux-musl|$out/lib|g" \
        -e "s|ld-musl-x86_64|ld-musl-$arch|" /usr/lib/x86_64-linux-musl/musl-gcc.specs >"$out/musl-gcc.specs"
    printf '#!/bin/sh\nexec %s "$@" -specs "%s"\n' "$gcc" "$out/musl-gcc.specs" >"$out/musl-gcc"
    chmod +x "$out/musl-gcc"
    echo "$key" >"$out/.key"
fi

"$root/src/sys/libblkid.sh" "$arch"

target=${triple//-/_}
export "CC_$target=$out/musl-gcc" "AR_$target=$arch-linux-gnu-ar"
export "CARGO_TARGET_${target^^}_LINKER=$gcc"
export "PKG_CONFIG_LIBDIR_$target=$root/target/libblkid-$arch/lib/pkgconfig"
export "BINDGEN_EXTRA_CLANG_ARGS_$target=-nostdlibinc -isystem $out/include"
[ $# -eq 0 ] || exec "$@"
