#!/usr/bin/env bash
# Other people's programs that the tests drive us with: DCMTK, dicom3tools, PostgreSQL, iproute2 (Debian packages), and
# moto's S3 server in an environment of its own, since it and we disagree about versions.
# As root on Debian they are installed; else a line says what is missing and the tests that need it say so too.
set -euo pipefail
cd "$(dirname "$0")/.."

s3_server=.test-peers/moto
if [ ! -x "$s3_server/bin/moto_server" ]; then
    echo "installing test peer: moto's S3 server"
    rm -rf "$s3_server"
    mkdir -p .test-peers
    "${PYTHON:-python3.11}" -m venv "$s3_server"
    "$s3_server/bin/python" -m pip --disable-pip-version-check --quiet install \
        "moto[s3]==5.2.5" "flask==3.1.3" "flask-cors==6.0.5" ||
        { rm -rf "$s3_server"; echo "test peer missing: moto's S3 server (pip could not install it)" >&2; }
fi

declare -A package_of=([/usr/bin/storescu]=dcmtk [/usr/bin/dciodvfy]=dicom3tools [/sbin/ip]=iproute2)
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
