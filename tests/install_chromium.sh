#!/usr/bin/env bash
# Install Debian's Chromium, which the tests of report.html open it in. Does nothing where the program is there.
set -euo pipefail
command -v chromium > /dev/null && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || {
        echo "chromium is missing, and only root or sudo can install it: apt-get install --no-install-recommends chromium" >&2
        exit 1
    }
    as_root=(sudo)
fi
command -v apt-get > /dev/null || {
    echo "chromium is missing, and there is no apt-get to install it with; install it by hand" >&2
    exit 1
}
"${as_root[@]}" apt-get update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium
