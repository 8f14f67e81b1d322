#!/bin/sh
# Makes a fresh machine ready: npm packages for everything, Debian packages for what is named.
#
#   sh scripts/bootstrap.sh            npm packages only
#   sh scripts/bootstrap.sh demo       and what the demo needs
#   sh scripts/bootstrap.sh test       and the real programs that tests run against
#   sh scripts/bootstrap.sh bench      and the peers of the benchmark
#   sh scripts/bootstrap.sh torture    and what the namespaces and small disks of the torture are made with
#
# At a terminal it says what it wants to install and asks; elsewhere (CI, pipes) it says so and installs.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'holdfast: %s\n' "$*" >&2; }

agreed=""
agree() {
  [ -n "$agreed" ] && return 0
  if [ -t 0 ] && [ -t 2 ] && [ -z "${CI:-}" ]; then
    printf 'holdfast: %s Go on? [Y/n] ' "$1" >&2
    read -r answer
    case "$answer" in [nN]*) say "nothing was installed"; exit 1 ;; esac
  else
    say "$1"
  fi
  agreed=yes
}

# Debian packages, each with a program that shows it is there already. Without a useful one some tests,
# or the part of the demo with a server, are left out, and say so.
useful=""
case "${1:-}" in
  demo)  wanted="e2fsprogs:mke2fs"
         useful="qemu-system-x86:qemu-system-x86_64" ;;
  test)  wanted="e2fsprogs:mke2fs qemu-utils:qemu-io qemu-system-common:qemu-storage-daemon nbdkit:nbdkit libnbd-bin:nbdinfo fio:fio openssl:openssl sqlite3:sqlite3 python3-openstackclient:openstack postgresql:/usr/lib/postgresql/*/bin/initdb iproute2:ip nftables:nft xfsprogs:mkfs.xfs"
         useful="qemu-system-x86:qemu-system-x86_64 libvirt-daemon:libvirtd libvirt-daemon-driver-qemu:libvirtd libvirt-clients:virsh btrfs-progs:mkfs.btrfs ceph-mon:ceph-mon ceph-osd:ceph-osd ceph-common:ceph radosgw:radosgw python3-karborclient:karbor" ;;
  torture) wanted="iproute2:ip nftables:nft e2fsprogs:mke2fs xfsprogs:mkfs.xfs" ;;
  bench) wanted="qemu-utils:qemu-io qemu-system-common:qemu-storage-daemon nbdkit:nbdkit fio:fio restic:restic borgbackup:borg xfsprogs:mkfs.xfs" ;;
  *)     wanted="" ;;
esac

missing_of() {
  for entry in "$@"; do
    package=${entry%%:*}
    program=${entry#*:}
    case "$program" in
      /*) found=""; for path in $program; do [ -x "$path" ] && found=yes; done ;;
      *)  found=$(PATH="$PATH:/usr/sbin:/sbin" command -v "$program" || true) ;;
    esac
    [ -n "$found" ] || printf ' %s' "$package"
  done
}

apt() { $sudo apt-get -q -o DPkg::Lock::Timeout=300 "$@" >&2; }

# shellcheck disable=SC2086
missing=$(missing_of $wanted)
# shellcheck disable=SC2086
useful=$(missing_of $useful)
if [ -n "$missing$useful" ]; then
  if ! command -v apt-get >/dev/null; then
    say "these programs are used and this is not a Debian system, so install them yourself:$missing$useful"
    [ -z "$missing" ] || exit 1
  else
    if [ "$(id -u)" -ne 0 ]; then sudo=sudo; else sudo=""; fi
    agree "will install Debian packages:$missing$useful."
    export DEBIAN_FRONTEND=noninteractive
    apt update
    # shellcheck disable=SC2086
    [ -z "$missing" ] || apt -y install --no-install-recommends $missing
    # shellcheck disable=SC2086
    [ -z "$useful" ] || apt -y install --no-install-recommends $useful ||
      say "could not install$useful: tests that need them are skipped"
  fi
fi

# The versions and checksums of package-lock.json, installed again only when that file is not the one installed from.
# `npm install` and not `npm ci`: the linter and the formatter name binary packages of platforms that some registries do
# not carry, which `npm ci` takes for a broken lock file. What cannot run here is optional and left out by either.
# The demo needs no development packages.
stamp=node_modules/.holdfast-lock
have=""
if [ -f "$stamp.all" ] && cmp -s package-lock.json "$stamp.all"; then have=all
elif [ -f "$stamp.demo" ] && cmp -s package-lock.json "$stamp.demo"; then have=demo
fi
case "${1:-}" in demo) want=demo; omit="--omit=dev" ;; *) want=all; omit="" ;; esac
if [ "$have" != all ] && [ "$have" != "$want" ]; then
  agree "will install the npm packages of package-lock.json into node_modules (no install scripts run)."
  # shellcheck disable=SC2086
  npm install --ignore-scripts --no-audit --no-fund --loglevel=error $omit >&2
  rm -f "$stamp.all" "$stamp.demo"
  cp package-lock.json "$stamp.$want"
fi

# The tiny Linux that tests boot: its packages are downloaded into the user's cache, nothing of them is installed. Made once.
if [ "${1:-}" = test ]; then
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast-test
  [ -f "$cache/packages/packages.json" ] ||
    agree "will download four Debian packages (28 MB) into $cache for the disk images that tests boot."
  node_modules/.bin/node scripts/test-images.ts
fi
