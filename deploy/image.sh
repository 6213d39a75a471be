#!/usr/bin/env bash
# Builds the container image (build), and checks it as it would run in production (check).
#
# A Docker engine is used if one answers. If not, podman builds the unmodified Dockerfile, on Debian and as root, upon a
# stand-in for its base image, bootstrapped from Debian's packages: no image registry is needed. An image built that way
# is for checking, not for shipping.
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE=${COMMITTEE_IMAGE:-committee:latest}
CACHE=${COMMITTEE_IMAGE_CACHE:-/var/tmp/committee-image}
BASE=$(sed -n 's/^FROM \(python:[^@ ]*\).*/\1/p' Dockerfile)
SUITE=bookworm # the Debian whose Python is 3.11
PACKAGES=(podman runc mmdebstrap ca-certificates)

main() {
  case ${1:-} in
    build | check) ;;
    *) usage ;;
  esac
  choose_engine
  build
  [[ $1 == build ]] || check
}

usage() {
  echo "usage: deploy/image.sh build|check" >&2
  exit 2
}

say() { printf '[%(%T)T] %s\n' -1 "$*"; }

die() {
  say "FAILED: $*" >&2
  exit 1
}

logged() { # NAME COMMAND…: what the command prints goes to a log, whose end is shown if it fails
  local log=$CACHE/$1.log
  shift
  "$@" >"$log" 2>&1 </dev/null && return
  tail -n 30 "$log" >&2
  die "$1 $2: the whole log is $log; if the cache is at fault, remove $CACHE"
}

choose_engine() {
  if timeout 20 docker info >/dev/null 2>&1; then
    ENGINE=docker
  elif [[ $(id -u) == 0 && -e /etc/debian_version ]]; then
    ENGINE=podman
    prepare_podman
  else
    die "no Docker engine answers (docker info); to do without one, run this on Debian as root"
  fi
}

build() {
  say "build $IMAGE with $ENGINE"
  "build_with_$ENGINE"
  say "built: $("$ENGINE" image inspect --format '{{.Size}} bytes, user {{.Config.User}}' "$IMAGE" 2>/dev/null)"
}

build_with_docker() { docker build --tag "$IMAGE" .; }

build_with_podman() {
  # The OCI format has no HEALTHCHECK. The certificates are the host's, for a host whose packages come through a proxy.
  logged build podman build --pull=never --from "localhost/$BASE" --format docker --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --tag "$IMAGE" .
}

check() { "${PYTHON:-python3}" deploy/image_check.py --engine "$ENGINE" --image "$IMAGE"; }

prepare_podman() {
  mkdir -p "$CACHE"
  [[ -O $CACHE ]] || die "$CACHE belongs to another user"
  # What earlier runs that were cut short have left.
  find "$CACHE" -maxdepth 1 -name 'tmp.*' -mmin +60 -exec rm -rf --one-file-system {} +
  install_packages
  configure_podman
  podman image exists "localhost/$BASE" 2>/dev/null || import_base
}

install_packages() {
  local missing=() package
  for package in "${PACKAGES[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "install ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  logged apt dpkg --configure -a # mends an installation that was cut short
  logged apt apt-get update
  logged apt apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=120 "${missing[@]}"
}

# Podman's own store and settings, apart from the machine's. No systemd is assumed; runc, since crun refuses mixed
# cgroups; limits no higher than the host's hard ones, which a container without CAP_SYS_RESOURCE cannot raise.
configure_podman() {
  cat >"$CACHE/storage.conf" <<CONF
[storage]
driver = "$(storage_driver)"
graphroot = "$CACHE/store"
runroot = "/run/committee-image-$(cksum <<<"$CACHE" | cut -d ' ' -f 1)"
CONF
  cat >"$CACHE/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$(limit -Hn 65536)", "nproc=$(limit -Hu 4096)"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
  export CONTAINERS_STORAGE_CONF=$CACHE/storage.conf CONTAINERS_CONF=$CACHE/containers.conf
}

storage_driver() { # overlay if the kernel mounts one upon the cache's file system; else vfs, which copies
  local try
  try=$(mktemp -d -p "$CACHE")
  mkdir "$try"/{lower,upper,work,merged}
  if (cd "$try" && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none merged) 2>/dev/null; then
    umount "$try/merged"
    echo overlay
  else
    echo vfs
  fi
  rm -rf "$try"
}

limit() { # FLAG MOST: soft:hard, the host's hard limit but at most MOST
  local hard
  hard=$(ulimit "$1")
  [[ $hard != unlimited && $hard -lt $2 ]] || hard=$2
  echo "$hard:$hard"
}

import_base() {
  local tar=$CACHE/$SUITE.tar
  [[ $BASE == python:3.11* ]] || die "there is no stand-in for $BASE: $SUITE has Python 3.11"
  [[ -s $tar ]] || bootstrap "$tar"
  say "import it in place of $BASE"
  logged import podman import --change 'CMD ["python3"]' "$tar" "localhost/$BASE"
  rm "$tar"
}

bootstrap() { # TAR: a Debian with Python and little more; TAR appears only when it is whole
  local work mirror
  work=$(mktemp -d -p "$CACHE")
  chmod 755 "$work" # apt downloads as a user of its own
  mirror=$(mirror)
  say "bootstrap a base of Debian $SUITE"
  # EXTERNALLY-MANAGED is not in the official image either.
  # In a mount namespace of its own: killed, it leaves nothing mounted.
  # shellcheck disable=SC2016 # mmdebstrap's shell expands $1
  logged mmdebstrap env TMPDIR="$work" unshare --mount \
    mmdebstrap --mode=root --variant=minbase --dpkgopt=force-unsafe-io \
    --include=ca-certificates,python3,python3-pip,python3-venv,python-is-python3 \
    --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED "$1"/etc/apt/sources.list "$1"/etc/resolv.conf' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/*' \
    "$SUITE" "$work/base.tar" ${mirror:+"$mirror"}
  mv "$work/base.tar" "$1"
  rm -r "$work"
}

mirror() { # where this machine takes Debian from; nothing, and mmdebstrap knows, if that cannot be told
  # shellcheck disable=SC2016 # apt-get expands it
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' | sed -n 1p
}

main "$@"
