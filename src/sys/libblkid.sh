#!/usr/bin/env bash
# Builds the real libblkid (util-linux) as a static library for musl into target/libblkid, or for another machine into
# target/libblkid-MACHINE, with the compiler that cross.sh has made.
# usage: libblkid.sh [aarch64]
#
# Debian ships libblkid.a for glibc only, which does not link with musl (fortify symbols), so the library is made from
# Debian's own source package, with Debian's patches, as an unprivileged user. The result is kept in the cache by the
# version of the package and the content of this script; the sources go next to it, for the source bundle that the
# LGPL asks for. Nothing of the system's apt configuration is changed: it is read, with `deb` turned into `deb-src`.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${SPEEDISO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/speediso}
arch=${1:-}
out=$root/target/libblkid${arch:+-$arch}
key=$(sha256sum "$0" | cut -c1-16)-$(dpkg-query -W -f '${Version}' libblkid1)${arch:+-$arch}
kept=$cache/libblkid/$key

if [ ! -e "$kept/lib/libblkid.a" ]; then
    echo "libblkid: building for ${arch:+$arch and }musl from Debian's util-linux source (about a minute)"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"

    # A private apt state: same mirrors and keys as the system, sources instead of binaries.
    mkdir -p apt/sources apt/lists/partial apt/cache/archives/partial
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        if [ -e "$list" ]; then sed -n 's/^deb /deb-src /p' "$list" >"apt/sources/$(basename "$list" .list).list"; fi
    done
    for list in /etc/apt/sources.list.d/*.sources; do
        if [ -e "$list" ]; then sed 's/^Types:.*/Types: deb-src/' "$list" >"apt/sources/$(basename "$list")"; fi
    done
    apt="-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$work/apt/sources
         -o Dir::State::Lists=$work/apt/lists -o Dir::Cache=$work/apt/cache -o APT::Sandbox::User=$(id -un)"
    # shellcheck disable=SC2086 # a list of options
    apt-get $apt -qq update
    # shellcheck disable=SC2086
    apt-get $apt -qq source util-linux >/dev/null

    # Debian's patches touch configure.ac; one time stamp for all keeps make from wanting autoconf for it.
    find util-linux-*/ -exec touch -d @0 {} +
    mkdir kinc build
    if [ -n "$arch" ]; then
        host=$arch-linux-musl
        tools=(CC="$root/target/cross/$arch/musl-gcc")
        for tool in ar ranlib strip; do tools+=("${tool^^}=$arch-linux-gnu-$tool"); done
    else
        host=x86_64-linux-musl
        tools=(CC=musl-gcc)
        ln -s /usr/include/linux kinc/linux
        ln -s /usr/include/asm-generic kinc/asm-generic
        ln -s "/usr/include/$(gcc -dumpmachine)/asm" kinc/asm
    fi
    cd build
    configure=$(echo "$work"/util-linux-*/configure)
    "$configure" "${tools[@]}" CFLAGS="-O2 -ffunction-sections -fdata-sections -idirafter $work/kinc" \
        --host="$host" --prefix="$work/prefix" --disable-all-programs --enable-libblkid --enable-libuuid \
        --disable-shared --enable-static --disable-nls --disable-asciidoc --without-python --without-systemd \
        --without-udev --without-tinfo --without-ncurses --without-ncursesw --without-readline --without-cap-ng \
        --without-user --without-selinux --without-libz --without-econf --quiet >configure.log 2>&1 ||
        { tail -20 configure.log >&2; exit 1; }
    make -j"$(nproc)" install-strip >make.log 2>&1 || { tail -20 make.log >&2; exit 1; }

    mkdir -p "$work/prefix/source"
    cp ../util-linux_*.dsc ../util-linux_*.tar.* "$work/prefix/source/"
    # The recorded paths are made relative to the .pc file, so that the cached tree can be copied anywhere.
    sed -i "s|$work/prefix|\${pcfiledir}/../..|g" "$work"/prefix/lib/pkgconfig/*.pc
    mkdir -p "$(dirname "$kept")"
    rm -rf "$kept.part" && cp -r "$work/prefix" "$kept.part" && mv -T "$kept.part" "$kept"
    cd "$root"
fi

# Copied only when it differs, so that cargo does not see a new library at every run.
if [ "$(cat "$out/.key" 2>/dev/null)" != "$key" ]; then
    rm -rf "$out" && mkdir -p "$(dirname "$out")" && cp -r "$kept" "$out" && echo "$key" >"$out/.key"
fi
