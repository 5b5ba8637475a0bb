#!/usr/bin/env bash
# Times farllama, translating a chat, against nginx, merely passing it on: the same upstream, the same machine, in turns.
# Then the memory of 1,000 open streams, and how soon the remote feels that a client has gone.
# Needs Linux, nginx, wrk and release builds (`cargo xtask bench`). Usage: bench.sh [--seconds N] [--rounds N]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=3 rounds=3
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    *) sed -n '2,4s/^# //p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
  esac
done
for tool in nginx wrk; do
  command -v "$tool" >/dev/null || { echo "bench: $tool is missing (Debian: apt-get install nginx-light wrk)" >&2; exit 2; }
done

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$dir"' EXIT
origin=19401 through=19402 ours=19403 paced=19404 held=19405 streams_through=19406
streams=1000 words=100
ulimit -n 8192

reply='{"model":"m","created_at":"2026-11-22T12:37:41.5Z","message":{"role":"assistant","content":"Hello there, this is the answer that I give to everybody who asks."},"done":true,"done_reason":"stop","total_duration":349612559,"load_duration":1927880,"prompt_eval_count":15,"prompt_eval_duration":9212000,"eval_count":17,"eval_duration":334307000}'
common="daemon off; worker_processes 1; events { worker_connections 4096; }"
http="access_log off; keepalive_requests 100000000;"
pass="proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off;"
cat >"$dir/origin.conf" <<CONF
$common error_log $dir/origin.log; pid $dir/origin.pid;
http { $http server { listen 127.0.0.1:$origin; location / { default_type "application/json; charset=utf-8"; return 200 '$reply'; } } }
CONF
cat >"$dir/through.conf" <<CONF
$common error_log $dir/through.log; pid $dir/through.pid;
http { $http upstream origin { server 127.0.0.1:$origin; keepalive 128; keepalive_requests 100000000; }
  upstream paced { server 127.0.0.1:$paced; keepalive 128; keepalive_requests 100000000; }
  server { listen 127.0.0.1:$through; location / { proxy_pass http://origin; $pass } }
  server { listen 127.0.0.1:$streams_through; location / { proxy_pass http://paced; $pass } } }
CONF
asking() { # whether it is streamed
  printf '%s' '{"model":"m","messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"Say hello to the world, and then tell me about the weather in Paris and Rome."}],"temperature":0.7,"max_tokens":100,"stream":'"$1"'}'
}
for streamed in true false; do
  cat >"$dir/$streamed.lua" <<LUA
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '$(asking $streamed)'
LUA
done
lines=$(for n in $(seq $words); do printf '{"message": {"content": " word%s"}}, ' "$n"; done)
echo "[{\"when\": {\"path\": \"/api/chat\"}, \"reply\": {\"pause\": \"2ms\", \"lines\": [$lines {\"done\": true, \"done_reason\": \"stop\", \"eval_count\": $words}]}}]" >"$dir/paced.json"
echo '[{"when": {"path": "/api/chat"}, "reply": {"lines": [{"message": {"content": "one"}}], "then": "stall"}}]' >"$dir/held.json"

nginx -c "$dir/origin.conf" &
nginx -c "$dir/through.conf" &
for port in $paced $held; do
  script=$dir/$([ $port = $paced ] && echo paced || echo held).json
  target/release/mock-ollama --quiet --model m --port $port --script "$script" >/dev/null &
done
proxy() { # to which port; sets `farllama`
  target/release/farllama serve --local-port $ours --remote-host "127.0.0.1:$1" 2>"$dir/farllama.log" &
  farllama=$!
  sleep 1
}
proxy $origin
worker=$(pgrep -P "$(cat "$dir/through.pid")")

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
resident() { awk '/VmRSS/ { printf "%.1f MB", $2 / 1024 }' "/proc/$farllama/status"; }
measure() { # name, process, url, connections, whether it is streamed
  local before after
  before=$(ticks "$2")
  wrk -t1 -c"$4" -d"${seconds}s" --latency -s "$dir/$5.lua" "$3" >"$dir/out"
  after=$(ticks "$2")
  if grep -q "Non-2xx" "$dir/out"; then echo "bench: $1 answered with errors" >&2; exit 1; fi
  awk -v name="$1" -v c="$4" -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v chunks=$([ "$5" = true ] && echo $words || echo 0) '
    $1 == "50%" { p50 = $2 } $1 == "99%" { p99 = $2 } /requests in/ { n = $1 } /Requests\/sec/ { rate = $2 }
    END {
      us = ticks * 1e6 / hz / n
      if (chunks) printf "%-9s %3d connections  streams of %d chunks  %5.1f us CPU a chunk\n", name, c, chunks, us / chunks
      else printf "%-9s %3d connections  p50 %-9s p99 %-9s %8.0f/s  %5.1f us CPU a request\n", name, c, p50, p99, rate, us
    }' "$dir/out"
}

echo "idle: $(resident) resident"
for connections in 1 16; do
  for _ in $(seq "$rounds"); do
    measure nginx "$worker" "http://127.0.0.1:$through/api/chat" $connections false
    measure farllama "$farllama" "http://127.0.0.1:$ours/v1/chat/completions" $connections false
  done
done
echo "afterwards: $(resident) resident"

kill $farllama; wait $farllama || true
proxy $paced
for _ in $(seq "$rounds"); do
  measure nginx "$worker" "http://127.0.0.1:$streams_through/api/chat" 16 true
  measure farllama "$farllama" "http://127.0.0.1:$ours/v1/chat/completions" 16 true
done

kill $farllama; wait $farllama || true
proxy $held
# Connections to the remote that is never done, of this process alone: nobody else speaks to it.
upstream() { awk -v port="$(printf ':%04X' $held)" '$3 ~ port "$" && $4 == "01"' /proc/net/tcp | wc -l; }
body=$(asking true)
sockets=()
open() {
  local socket
  exec {socket}<>"/dev/tcp/127.0.0.1/$ours"
  printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' $ours ${#body} "$body" >&$socket
  sockets+=("$socket")
}
until_upstream() { while [ "$(upstream)" != "$1" ]; do :; done; }
hang_up() { # prints how long it takes to be felt; looking takes some of it
  local socket=${sockets[-1]} begin=${EPOCHREALTIME/./}
  exec {socket}>&-
  unset 'sockets[-1]'
  until_upstream ${#sockets[@]}
  echo "hang-up: felt upstream within $(awk -v us=$((${EPOCHREALTIME/./} - begin)) 'BEGIN { printf "%.1f", us / 1000 }') ms"
}
open; until_upstream 1; sleep 0.2; hang_up
for _ in $(seq $streams); do open; done
until_upstream $streams
sleep 2
echo "$streams open streams: $(resident) resident"
