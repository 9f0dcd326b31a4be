#!/bin/sh
# Send a test message: scripts/send-test-email.sh ADDRESS. It says what became of it; status 0
# says that the next hop accepted it. .env in the checkout is honoured, as by scripts/run.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
"$root/scripts/venv"
if [ -f "$root/.env" ]; then set -- --env-file "$root/.env" "$@"; fi
exec "$root/.venv/bin/mailtwist-send-test" "$@"
