#!/usr/bin/env bash
# Train on several machines: start this on each of them, the first one first, with the same words after --.
#
#   ADDRESS=10.0.0.1 FIRST=10.0.0.1 recipes/parallel/hosts.sh -- --data text.txt --out runs/both --mesh fsdp=2
#   ADDRESS=10.0.0.2 FIRST=10.0.0.1 recipes/parallel/hosts.sh -- --data text.txt --out runs/both --mesh fsdp=2
#
# ADDRESS    of this machine, as the others reach it
# FIRST      of the machine that the others come to; --out must lie where all see it, since all resume from there
# MACHINES   how many: 2, or 1:2 to go on with one where the other is lost (the mesh is then to be left out)
# PROCESSES  on each machine: 1 on CPUs, else its GPUs
# INTERFACE  the network interface for the data: by default the one that has ADDRESS
set -euo pipefail
: "${ADDRESS:?of this machine}" "${FIRST:?of the first machine}"
[ "${1:-}" = "--" ] && shift

# Without it a restarted attempt finds the addresses of the one that died, and waits for them (pytorch/pytorch#135712).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Left to themselves the libraries take the interface of this machine's name, which may be the loopback one.
having_address() { ip -o -4 address 2>/dev/null | awk -v address="$ADDRESS" '{ sub("/.*", "", $4) } $4 == address { print $2; exit }'; }
INTERFACE=${INTERFACE:-$(having_address || true)}
if [ -n "$INTERFACE" ]; then
    export GLOO_SOCKET_IFNAME=$INTERFACE NCCL_SOCKET_IFNAME=$INTERFACE
fi
is_host=0
if [ "$ADDRESS" = "$FIRST" ]; then is_host=1; fi # else each may take itself for a guest, and all wait

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${MACHINES:-2}" --nproc-per-node "${PROCESSES:-1}" --local-addr "$ADDRESS" --max-restarts 10 \
    --rdzv-backend c10d --rdzv-id "${RUN:-nano-llama}" --rdzv-endpoint "$FIRST:${PORT:-29511}" \
    --rdzv-conf "is_host=$is_host,last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3" \
    -m nano_llama train "$@"
