#!/usr/bin/env bash
# Other people's programs that the tests drive us with: DCMTK, dicom3tools, PostgreSQL (Debian packages).
# As root on Debian they are installed; else a line says what is missing and the tests that need it say so too.
set -euo pipefail

declare -A package_of=([/usr/bin/storescu]=dcmtk [/usr/bin/dciodvfy]=dicom3tools)
missing=()
for program in "${!package_of[@]}"; do
    [ -x "$program" ] || missing+=("${package_of[$program]}")
done
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing+=(postgresql)
[ "${#missing[@]}" -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing test peers: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "test peers missing: ${missing[*]} (install them with apt-get install ${missing[*]})" >&2
fi
