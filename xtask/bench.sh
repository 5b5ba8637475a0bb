#!/usr/bin/env bash
# Times farllama, translating a chat, against nginx, merely passing it on: the same upstream, the same machine, in turns.
# Needs nginx, wrk and a release build (`cargo xtask bench`). Usage: bench.sh [--seconds N] [--rounds N]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=3 rounds=3
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    *) sed -n '2,3s/^# //p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
  esac
done
for tool in nginx wrk; do
  command -v "$tool" >/dev/null || { echo "bench: $tool is missing (Debian: apt-get install nginx-light wrk)" >&2; exit 2; }
done

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$dir"' EXIT
origin=19401 through=19402 ours=19403

reply='{"model":"m","created_at":"2026-11-22T12:37:41.5Z","message":{"role":"assistant","content":"Hello there, this is the answer that I give to everybody who asks."},"done":true,"done_reason":"stop","total_duration":349612559,"load_duration":1927880,"prompt_eval_count":15,"prompt_eval_duration":9212000,"eval_count":17,"eval_duration":334307000}'
common="daemon off; worker_processes 1; events { worker_connections 4096; }"
http="access_log off; keepalive_requests 100000000;"
cat >"$dir/origin.conf" <<CONF
$common error_log $dir/origin.log; pid $dir/origin.pid;
http { $http server { listen 127.0.0.1:$origin; location / { default_type "application/json; charset=utf-8"; return 200 '$reply'; } } }
CONF
cat >"$dir/through.conf" <<CONF
$common error_log $dir/through.log; pid $dir/through.pid;
http { $http upstream origin { server 127.0.0.1:$origin; keepalive 128; keepalive_requests 100000000; }
  server { listen 127.0.0.1:$through; location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } } }
CONF
cat >"$dir/post.lua" <<'LUA'
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"model":"m","messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"Say hello to the world, and then tell me about the weather in Paris and Rome."}],"temperature":0.7,"max_tokens":100,"stream":false}'
LUA

nginx -c "$dir/origin.conf" &
nginx -c "$dir/through.conf" &
target/release/farllama serve --local-port $ours --remote-host 127.0.0.1:$origin 2>"$dir/farllama.log" &
farllama=$!
sleep 1
worker=$(pgrep -P "$(cat "$dir/through.pid")")

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
resident() { awk '/VmRSS/ { printf "%.1f MB", $2 / 1024 }' "/proc/$farllama/status"; }
measure() { # name, process, url, connections
  local before after
  before=$(ticks "$2")
  wrk -t1 -c"$4" -d"${seconds}s" --latency -s "$dir/post.lua" "$3" >"$dir/out"
  after=$(ticks "$2")
  if grep -q "Non-2xx" "$dir/out"; then echo "bench: $1 answered with errors" >&2; exit 1; fi
  awk -v name="$1" -v c="$4" -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
    $1 == "50%" { p50 = $2 } $1 == "99%" { p99 = $2 } /requests in/ { n = $1 } /Requests\/sec/ { rate = $2 }
    END { printf "%-9s %3d connections  p50 %-9s p99 %-9s %8.0f/s  %5.1f us CPU a request\n", name, c, p50, p99, rate, ticks * 1e6 / hz / n }' "$dir/out"
}

echo "idle: $(resident) resident"
for connections in 1 16; do
  for _ in $(seq "$rounds"); do
    measure nginx "$worker" "http://127.0.0.1:$through/api/chat" $connections
    measure farllama "$farllama" "http://127.0.0.1:$ours/v1/chat/completions" $connections
  done
done
echo "afterwards: $(resident) resident"
