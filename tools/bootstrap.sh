#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prepare this clone.  bootstrap.sh setup: what building needs, then .venv.  bootstrap.sh tests: what `make test` skips without.
# bootstrap.sh boards, bootstrap.sh wheels: what `make boards` and `make wheels` need.
# As root on Debian it installs what is missing; otherwise it prints the one line that does, and setup stops.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

have() { command -v "$1" >/dev/null 2>&1; }

# Capabilities, not package names: python3 need not be Debian's.
missing_for_setup() {
    have make || echo make
    have gcc || echo gcc
    echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || echo libc6-dev
    have "$PYTHON" || { echo python3; echo python3-venv; echo python3-dev; return; }
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    "$PYTHON" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' 2>/dev/null || echo python3-dev
}

missing_for_tests() {
    have clang-14 || echo clang-14
    ls /usr/lib/llvm-14/lib/clang/*/lib/linux/libclang_rt.fuzzer-* >/dev/null 2>&1 || echo libclang-rt-14-dev
    have g++ || echo g++ # the gate's header in C++
    have zsh || echo zsh
    have fish || echo fish
    have systemd-analyze || echo systemd
    have arm-none-eabi-gcc || echo gcc-arm-none-eabi
    have aarch64-linux-gnu-gcc || echo gcc-aarch64-linux-gnu
    have riscv64-linux-gnu-gcc || echo gcc-riscv64-linux-gnu
    have qemu-system-riscv64 || echo qemu-system-misc # boot stage and monitor
    have mcs || echo mono-mcs # what Renode is lent
    have swtpm || echo swtpm # the TPM of tests
    ls /usr/lib/*/libtss2-tcti-swtpm.so.0 >/dev/null 2>&1 || { echo libtss2-esys-3.0.2-0; echo libtss2-tctildr0; echo libtss2-tcti-swtpm0; }
    have qemu-aarch64 || { echo qemu-user; echo libc6-dev-arm64-cross; } # runs the ARMv8 SHA-256
}

missing_for_boards() {
    have qemu-system-aarch64 && have qemu-system-arm || echo qemu-system-arm
    have qemu-system-x86_64 || echo qemu-system-x86
    have qemu-img || echo qemu-utils
    PATH=$PATH:/usr/sbin:/sbin have mke2fs || echo e2fsprogs
    PATH=$PATH:/usr/sbin:/sbin have depmod || echo kmod
    have fdtput || echo device-tree-compiler
    have swtpm || echo swtpm # a board's TPM
    have aarch64-linux-gnu-gcc || echo gcc-aarch64-linux-gnu
    have arm-linux-gnueabihf-gcc || echo gcc-arm-linux-gnueabihf
    [ -e /usr/aarch64-linux-gnu/include/stdlib.h ] || echo libc6-dev-arm64-cross
    [ -e /usr/arm-linux-gnueabihf/include/stdlib.h ] || echo libc6-dev-armhf-cross
}

missing_for_wheels() {
    have qemu-riscv64 || echo qemu-user
    for arch in aarch64:arm64 arm:armhf riscv64:riscv64; do
        triplet=${arch%:*}-linux-gnu
        [ "$triplet" != arm-linux-gnu ] || triplet=arm-linux-gnueabihf
        have "$triplet-gcc" || echo "gcc-$triplet"
        [ -e "/usr/$triplet/include/stdlib.h" ] || echo "libc6-dev-${arch#*:}-cross"
    done
}

install() {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

setup() {
    local missing
    missing=$(missing_for_setup | sort -u | tr '\n' ' ')
    if [ -n "$missing" ]; then
        if [ "$(id -u)" -eq 0 ] && have apt-get; then
            echo "installing with apt-get: $missing"
            # shellcheck disable=SC2086
            install $missing
            missing=$(missing_for_setup | sort -u | tr '\n' ' ')
            [ -z "$missing" ] || { echo "still missing for $("$PYTHON" -c 'import sys; print(sys.executable)'): $missing" >&2; exit 1; }
        else
            echo "Missing: $missing. Run this, then make again:" >&2
            echo "  sudo apt-get install -y --no-install-recommends $missing" >&2
            exit 1
        fi
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; PYTHON= names another one." >&2; exit 1; }
    echo "setting up .venv with $("$PYTHON" --version): a minute or two the first time"
    [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check 'setuptools>=77' 'cython>=3.1' wheel
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-build-isolation -e '.[agent,validator,demo,test,bench,dev]'
}

tests() {
    local missing
    missing=$( (missing_for_tests; missing_for_boards) | sort -u | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -eq 0 ] && have apt-get; then
        # shellcheck disable=SC2086
        install $missing || echo "not installed: $missing; their checks are skipped and counted" >&2
    else
        echo "optional: sudo apt-get install -y --no-install-recommends $missing" >&2
    fi
}

# What a target cannot do without: needed boards
needed() {
    local missing
    missing=$("missing_for_$1" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -eq 0 ] && have apt-get; then
        echo "installing with apt-get: $missing"
        # shellcheck disable=SC2086
        install $missing
    else
        echo "Missing: $missing. Run this, then make $1 again:" >&2
        echo "  sudo apt-get install -y --no-install-recommends $missing" >&2
        exit 1
    fi
}

case "${1:-setup}" in
setup) setup ;;
tests) tests ;;
boards | wheels) needed "$1" ;;
*) echo "usage: $0 setup|tests|boards|wheels" >&2; exit 2 ;;
esac
