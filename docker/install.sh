#!/usr/bin/env bash
# What both images and a test install: the pinned packages and this checkout, as the user who will run them: `docker/install.sh cpu`.
set -euo pipefail

device=${1:?usage: docker/install.sh cpu|gpu}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
make setup DEVICE="$device"
# What was downloaded is installed, and would stay in the image's layer.
rm -rf "$HOME/.cache/pip"
