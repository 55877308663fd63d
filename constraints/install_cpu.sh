#!/usr/bin/env bash
# Installs the pinned CPU set into a virtual environment: `constraints/install_cpu.sh .venv`. What `make setup` runs.
#
# CPU builds of torch (`torch==...+cpu`) are not on the default package index. They are looked for
#   1. where pip's own configuration looks (a mirror, a folder of wheels);
#   2. on PyTorch's public index of CPU wheels, PYTORCH_INDEX, from which torch alone is taken;
#   3. nowhere: then torch of the same version from the default index, a CUDA build that computes on the CPU as well and
#      brings 2.8 GB of NVIDIA's libraries.
# The variables of pip (PIP_INDEX_URL, PIP_CONFIG_FILE, PIP_FIND_LINKS ...) hold for all of it.
set -euo pipefail

venv=${1:?usage: constraints/install_cpu.sh VENV [PINS]}
pins=${2:-$(dirname "${BASH_SOURCE[0]}")/cpu.txt}
index=${PYTORCH_INDEX:-https://download.pytorch.org/whl/cpu}
log=$venv/install.log
torch=$(grep '^torch==' "$pins")
pip=("$venv/bin/python" -m pip --disable-pip-version-check install)

# Runs pip with its output in the log; every ten seconds a line says what it is at.
quietly() {
  local began=$SECONDS shown=0 last
  "$@" >>"$log" 2>&1 &
  local pid=$!
  # A command in the background does not see Ctrl-C: pip would install on when this script is gone.
  # shellcheck disable=SC2064  # this process, whatever the variable is by then
  trap "kill $pid 2>/dev/null || true" EXIT
  # Without `wait` in a condition a failing pip would end this script before it can try the next source.
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - began >= shown + 10)); then
      shown=$((SECONDS - began))
      last=$(grep -oE '^ *(Collecting|Downloading|Processing|Installing|Building|Preparing) [^ ]+( [a-z]+ packages)?' "$log" | tail -n 1 || true)
      echo "  ${shown} s: ${last:-starting pip}"
    fi
  done
  trap - EXIT
  wait "$pid"
}

fail() {
  echo "make: $1; pip's last words ($log):" >&2
  grep -v '^WARNING: Location' "$log" | tail -n 5 >&2 || true
  exit 1
}

: >"$log"
echo "installing $(grep -c == "$pins") pinned packages into $venv: about 4.5 GB, 3 to 6 minutes"
# Complete by itself, so without a resolver; its header says what stays out and why.
quietly "${pip[@]}" --no-deps -r <(grep -v '^torch==' "$pins") || fail "pip could not install the pinned packages"

echo "installing $torch"
if quietly "${pip[@]}" --no-deps "$torch"; then
  source="the CPU build, found through pip's own configuration"
elif quietly "${pip[@]}" --no-deps --retries 1 --index-url "$index" "$torch"; then
  source="the CPU build, from $index"
else
  echo "  no CPU build of torch in reach (neither pip's configuration nor $index has one): the default index has a CUDA build, 2.8 GB more"
  quietly "${pip[@]}" "${torch%+cpu}" || fail "pip found no torch ${torch#torch==} anywhere; name an index that has it: PYTORCH_INDEX=URL"
  source="a CUDA build, from the default index; it computes on the CPU here"
fi

# Published as CUDA builds only: beside a CPU torch their import fails and takes transformers with it.
"$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec >>"$log" 2>&1 || true
quietly "${pip[@]}" --no-deps --no-build-isolation -e "$(dirname "${BASH_SOURCE[0]}")/.." || fail "pip could not install lrm_safety itself"
echo "installed: torch is $source; $venv takes $(du -sh "$venv" | cut -f 1)"
