#!/bin/sh
# Installs inferd from this folder on a machine without a network: the packages, then the models.
# Nothing is touched before every file has the checksum that the bundle was made with.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
store=${MODELS:-/var/lib/inferd/models}

cd "$here"
sha256sum --check --strict --quiet SHA256SUMS
[ "$(id -u)" -eq 0 ] || { echo "all files are whole; run this as root to install them" >&2; exit 1; }

# One dpkg run sees all packages together, so that their order does not matter.
[ "${SKIP_PACKAGES:-no}" = yes ] || dpkg --install packages/*.deb

incoming=$(mktemp -d "$store/../.bundle.XXXXXX")
trap 'rm -rf "$incoming"' EXIT
for model in models/*; do
    [ -e "$model" ] || continue
    name=${model#models/}
    if [ -e "$store/$name" ]; then
        echo "kept the model $name that is here already"
        continue
    fi
    cp -R "$model" "$incoming/$name"
    chown -R --reference="$store" "$incoming/$name"
    # A rename: the daemon sees the whole model or none.
    mv -T "$incoming/$name" "$store/$name"
    echo "installed the model $name"
done
