#!/usr/bin/env bash
# Every fuzz target for some time (FUZZ_SECONDS each, 60 if not given), from seeds that the formats' own tools make; then the
# property tests of the readers that libFuzzer cannot be linked with (they stand on libblkid and TLS), with FUZZ_CASES each.
set -euo pipefail
cd "$(dirname "$0")"

if ! rustup toolchain list | grep -q '^nightly'; then
    echo "fuzz: libFuzzer needs a nightly compiler: installing it beside the pinned one"
    rustup toolchain install nightly --profile minimal
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: installing cargo-fuzz (2 minutes)"
    cargo +nightly install cargo-fuzz --locked --quiet
fi

seeds() {
    local dir=$1 n=0
    mkdir -p corpus/{qcow2,manifest,decoders,container,certificate,lldp,smbios}
    { head -c 20000 /dev/urandom; head -c 40000 /dev/zero; yes 'all work and no play' | head -c 40000 || true; } >"$dir/disk"
    truncate -s 131072 "$dir/disk"
    for options in '' '-c' '-o compat=0.10' '-c -o compression_type=zstd'; do
        # shellcheck disable=SC2086 # several words each
        qemu-img convert -O qcow2 -o cluster_size=512 $options "$dir/disk" "corpus/qcow2/seed-$n"
        n=$((n + 1))
    done
    n=0
    for program in cat gzip zstd xz bzip2 lz4; do
        # The first byte chooses the decoder.
        { printf '%b' "\\x$n"; "$program" -c "$dir/disk" 2>/dev/null || cat "$dir/disk"; } >"corpus/decoders/seed-$program"
        n=$((n + 1))
    done
    for seed in corpus/qcow2/seed-0 corpus/decoders/seed-*; do
        # Without the byte that chooses the decoder, but for qcow2, which has none.
        case $seed in */qcow2/*) skip=1 ;; *) skip=2 ;; esac
        head -c 600 "$seed" | tail -c "+$skip" >"corpus/container/$(basename "$seed")"
    done
    # shellcheck disable=SC2016 # nothing is to be expanded
    sed -n '/^```json$/,/^```$/p' ../docs/image-manifest.md | sed '1d;$d' >corpus/manifest/seed-json
    sha256sum "$dir/disk" | sed 's,  .*,  disk.img,' >corpus/manifest/seed-list
    zstd -q -c "$dir/disk" >corpus/manifest/seed-chunk
    tail -n 1 ../src/model/src/certificate/snapshots/*one_line*.snap >corpus/certificate/seed
    for machine in ../src/sys/src/fixtures/machines/*.tar.gz; do
        # The target takes 31 bytes, an entry point's length, and the table behind them.
        for file in smbios_entry_point DMI; do tar -xzOf "$machine" "./sys/firmware/dmi/tables/$file"; done \
            >"corpus/smbios/seed-$(basename "$machine" .tar.gz)"
    done
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
seeds "$work"
# A switch: chassis, port, time to live, name, capabilities, VLAN, end.
printf '\x01\x80\xc2\x00\x00\x0e\x02\x00\x00\x00\x00\x01\x88\xcc\x02\x07\x04\x00\x1c\x73\xaa\xbb\xcc\x04\x04\x05et7\x06\x02\x00\x78\x0a\x04leaf\x0e\x04\x00\x14\x00\x14\xfe\x06\x00\x80\xc2\x01\x00\x64\x00\x00' >corpus/lldp/seed-0

for target in qcow2 manifest decoders container certificate lldp smbios; do
    echo "fuzz: $target for ${FUZZ_SECONDS:-60} s"
    if ! cargo +nightly fuzz run --target x86_64-unknown-linux-gnu "$target" -- \
        -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=512 -timeout=20 -max_len=262144 -print_final_stats=1 \
        >"$work/log" 2>&1; then
        tail -n 60 "$work/log"
        echo "fuzz: $target was broken; what broke it is in fuzz/artifacts/$target" >&2
        exit 1
    fi
    grep -E '^stat::(number_of_executed_units|peak_rss_mb)' "$work/log"
done

# DHCP, router advertisements, DNS, the command line, IPMI, EFI variables, SMART, Opal, captured machines.
echo "fuzz: property tests, ${FUZZ_CASES:-20000} cases each"
(cd .. && PROPTEST_CASES="${FUZZ_CASES:-20000}" cargo nextest run -p speediso-sys -p speediso-agent -E 'test(/::any_/)')
