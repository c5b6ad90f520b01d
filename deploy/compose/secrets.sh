#!/usr/bin/env bash
# Makes the secrets of compose.yaml that can be made, in secrets/ beside this file. What is there is kept.
#
# Containers read these files as users of their own, so they are readable by all; their directory is for you alone.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"

umask 077
mkdir -p secrets
chmod 700 secrets
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
# put NAME TEXT: a file that is there is left as it is.
put() {
  [ -e "secrets/$1" ] || printf '%s' "$2" >"secrets/$1"
  chmod 644 "secrets/$1"
}

put postgres_password "$(random)"
put redis_password "$(random)"
put admin_key "$(random)"
# What the admin listeners show, by the names that they have on this machine and to each other. It vouches for itself.
if [ ! -e secrets/admin_tls_cert ] || [ ! -e secrets/admin_tls_key ]; then
  command -v openssl >/dev/null || { echo "$0 needs openssl, for the certificate of the admin listeners" >&2; exit 1; }
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=tollgate-admin \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:gateway-1,DNS:gateway-2 \
    -keyout secrets/admin_tls_key -out secrets/admin_tls_cert
fi
chmod 644 secrets/admin_tls_key secrets/admin_tls_cert
put database_url "postgres://tollgate:$(cat secrets/postgres_password)@postgres:5432/tollgate"
put redis_url "redis://:$(cat secrets/redis_password)@redis:6379"
put redis_auth.conf "requirepass $(cat secrets/redis_password)
"
if [ ! -s secrets/openai_api_key ]; then
  echo "Now write your OpenAI key into $PWD/secrets/openai_api_key (mode 644)." >&2
fi
