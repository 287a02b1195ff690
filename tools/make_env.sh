#!/usr/bin/env bash
# Makes the virtual environment of the checkout: the package, editable, with what tests and lint need.
set -euo pipefail

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
# What napari and its tests need under a virtual screen on Debian and Ubuntu.
LIBRARIES="xvfb xauth libgl1-mesa-dri libegl1 libgl1 libglib2.0-0 libdbus-1-3 libfontconfig1
  libxkbcommon0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0"
INSTALL="apt-get install -y --no-install-recommends"

install_libraries() {
  command -v dpkg-query >/dev/null || return 0
  local missing="" name installed
  # Newer releases call one libglib2.0-0t64 and say that it provides the old name.
  installed=$(dpkg-query -W -f '${Status} ${Package} ${Provides}\n' | grep '^install ok installed' || true)
  for name in $LIBRARIES; do
    grep -qwF -- "$name" <<<"$installed" || missing="$missing $name"
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" = 0 ]; then
    { apt-get update -q && $INSTALL $missing; } || say_line "$missing"
  elif sudo -n true 2>/dev/null; then
    { sudo -n apt-get update -q && sudo -n $INSTALL $missing; } || say_line "$missing"
  else
    say_line "$missing"
  fi
}

say_line() {
  echo "The window needs system libraries that are not installed. Run once:" >&2
  echo "  sudo apt-get update && sudo $INSTALL$1" >&2
  echo "The command line and the tests without a window work without them." >&2
}

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "Python 3.11 or newer is needed, $("$PYTHON" --version) found. Run: make PYTHON=python3.12 env" >&2
  exit 2
fi
if ! "$PYTHON" -m venv "$VENV"; then
  echo "Python cannot make environments. Run once: sudo apt-get install -y python3-venv" >&2
  exit 2
fi
"$VENV/bin/python" -m pip install --quiet --upgrade pip
if ! command -v nvidia-smi >/dev/null && ! "$VENV/bin/python" -c 'import torch' 2>/dev/null; then
  # Without a GPU, this version, which some machines hold as a small CPU build. To take such a build
  # from elsewhere, set PIP_EXTRA_INDEX_URL as PyTorch's "Get started" page says for CPU.
  "$VENV/bin/python" -m pip install --quiet torch==2.13.0
fi
"$VENV/bin/python" -m pip install --quiet --editable ".[all]" --group dev
install_libraries
