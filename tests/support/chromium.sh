#!/bin/sh
# Install what the tests of pictures need, where it is missing: a headless Chromium of Debian's, and
# fonts of several scripts. As root, or by a sudo that asks for no password. Where that is not
# possible, any Chromium or Chrome on the PATH will do (tests/support/browser.py); without one these
# tests are skipped, but fail where CI is set.
packages="chromium-headless-shell fonts-dejavu-core fonts-droid-fallback fonts-freefont-ttf"

command -v apt-get > /dev/null || exit 0
# shellcheck disable=SC2086  # a word for each package
dpkg -s $packages > /dev/null 2>&1 && exit 0

root=""
[ "$(id -u)" = 0 ] || root="sudo -n"
install() {
  # shellcheck disable=SC2086
  $root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
    install -y --no-install-recommends $packages > "$log" 2>&1
}

log=$(mktemp)
install || { $root apt-get -q -o DPkg::Lock::Timeout=300 update > "$log" 2>&1 && install; } || {
  cat "$log"
  echo "Chromium could not be installed: without one the tests of pictures are skipped, or fail in CI."
}
rm -f "$log"
