#!/bin/sh
# Creates the passwords and the write key of the compose files, each once: what
# exists is kept, so that it can be run again at any time. To replace a password,
# delete its file, run this, and run `docker compose up` again.
#
#   deploy/compose/secrets.sh [APP]      # APP: id of the app of the write key, default main
#   deploy/compose/secrets.sh -tls       # also certificates, for compose.tls.yaml
#
# The folder may be entered by its owner alone. The files in it are readable: the
# containers, which see single files, run as another user.
set -eu
umask 022
dir=${UPTAKE_SECRETS:-$(dirname "$0")/secrets}
tls=
if [ "${1:-}" = -tls ]; then tls=1; shift; fi
app=${1:-main}
case $app in *[!A-Za-z0-9_-]*) echo "secrets.sh: app $app: use letters, digits, _ and -" >&2; exit 2 ;; esac

mkdir -p "$dir/clickhouse-users" "$dir/gateway"
chmod 700 "$dir"

random() { LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | dd bs=1 count="$1" 2>/dev/null; }
hash() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1; }
secret() { [ -s "$dir/$1" ] || { random 32 >"$dir/$1.new" && mv "$dir/$1.new" "$dir/$1"; }; }

secret clickhouse-admin
for name in migrator writer console alerts analyst; do secret "clickhouse-users/$name"; done
secret grafana-admin
secret console-password
secret console-proxy
printf 'proxy_set_header X-Proxy-Secret "%s";\n' "$(cat "$dir/console-proxy")" >"$dir/console-proxy.conf"
printf 'admin:%s\n' "$(openssl passwd -apr1 -stdin <"$dir/console-password")" >"$dir/console-htpasswd"

if [ ! -s "$dir/gateway/keys.yaml" ]; then
    key=$(random 32)
    cat >"$dir/gateway/keys.yaml.new" <<KEYS
# Apps and the hashes of their write keys; docs: ingest-gateway/DESIGN.md. The last
# line, three dots, says that the file is complete.
apps:
  - id: $app
    keys: ["sha256:$(printf %s "$key" | hash)"]
...
KEYS
    mv "$dir/gateway/keys.yaml.new" "$dir/gateway/keys.yaml"
    echo "write key of the app $app, shown this once: $key"
fi

[ -n "$tls" ] || exit 0
certs=$dir/tls
mkdir -p "$certs"
if [ ! -s "$certs/ca.crt" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
        -subj "/CN=uptake compose CA" -keyout "$certs/ca.key" -out "$certs/ca.crt" 2>/dev/null
fi
# certificate NAME HOSTS: NAME.crt and NAME.key, and both in NAME.pem, as Kafka reads them.
certificate() {
    [ ! -s "$certs/$1.pem" ] || return 0
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -subj "/CN=$1" -keyout "$certs/$1.key" -out "$certs/$1.csr" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$2" >"$certs/$1.ext"
    openssl x509 -req -in "$certs/$1.csr" -CA "$certs/ca.crt" -CAkey "$certs/ca.key" -CAcreateserial \
        -days 825 -extfile "$certs/$1.ext" -out "$certs/$1.crt" 2>/dev/null
    chmod 644 "$certs/$1.key"
    cat "$certs/$1.key" "$certs/$1.crt" >"$certs/$1.pem"
    rm "$certs/$1.csr" "$certs/$1.ext"
}
certificate kafka DNS:kafka,DNS:kafka-2,DNS:kafka-3,DNS:localhost,IP:127.0.0.1
certificate clickhouse DNS:clickhouse,DNS:localhost,IP:127.0.0.1
certificate client DNS:client
