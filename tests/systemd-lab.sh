# shellcheck shell=sh
# The lab of tests/systemd, to be sourced: a container with a real systemd as one gateway (gw1), a
# plain daemon as the other (gw2), and a WireGuard client in the namespace that joins them.
#
#     gw1  container, eth0 10.0.1.10 --+-- br0 10.0.1.1 (router and client, $NET_NS)
#     gw2  namespace, eth0 10.0.1.11 --+
#
# Expects $binary, $archive (tests/systemd-root) and $work, a directory of its own.

GW1_NS=un-gw1 GW2_NS=un-gw2 NET_NS=un-net
FLOATING=203.0.113.10
# X25519 pairs that exist for this test alone.
GATEWAY_KEY=d2doYSBzeXN0ZW1kIHRlc3Qga2V5IG9mIGcuLi4uLi4=
GATEWAY_PUBLIC=vjP6CaGJKLIMLi9AuPiFY9HsgEIYHSM8eOXlGmhdR0M=
CLIENT_KEY=d2doYSBzeXN0ZW1kIHRlc3Qga2V5IG9mIGMuLi4uLi4=
CLIENT_PUBLIC=XnYYdr4P/GCcHpkSryCj+NnegOP7mHPtUwam4V1psmo=
root=$work/root
cgroup=/sys/fs/cgroup/wgha-test-$$

fail() {
    echo "FAILED: $*" >&2
    if [ -n "${init:-}" ] && [ -d "/proc/$init" ]; then
        gw1 journalctl --no-pager --no-hostname -n 40 -u 'wgha*' >&2 || true
    fi
    echo "--- gw2" >&2
    tail -n 20 "$work/gw2.log" >&2 || true
    exit 1
}

proved() { echo "ok: $*"; }

# Runs a command on a machine of the lab.
gw1() { nsenter -t "$init" -m -u -i -n -p -C -- env - PATH=/usr/bin:/usr/sbin "$@"; }
client() { ip netns exec "$NET_NS" "$@"; }

# until SECONDS COMMAND...: waits for the command to succeed. On a busy machine everything takes longer.
until_ok() {
    end=$(($(date +%s) + $1 * 4))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.1
    done
}

make_networks() {
    # Names that only this script sees, and that go with it.
    mkdir -p /run/netns
    mount -t tmpfs none /run/netns
    ip netns add "$GW1_NS"
    ip netns add "$GW2_NS"
    ip netns add "$NET_NS"
    ip -n "$NET_NS" link add br0 type bridge
    for pair in "$GW1_NS:10.0.1.10" "$GW2_NS:10.0.1.11"; do
        ns=${pair%:*}
        ip -n "$ns" link add eth0 type veth peer name "p${ns#un-}" netns "$NET_NS"
        ip -n "$NET_NS" link set "p${ns#un-}" master br0 up
        ip -n "$ns" address add "${pair#*:}/24" dev eth0
        ip -n "$ns" link set lo up
        ip -n "$ns" link set eth0 up
        ip -n "$ns" route add default via 10.0.1.1
    done
    ip -n "$NET_NS" address add 10.0.1.1/24 dev br0
    ip -n "$NET_NS" link set lo up
    ip -n "$NET_NS" link set br0 up
    ip -n "$NET_NS" route add 203.0.113.0/24 dev br0
}

# Boots the container and waits until its systemd takes orders.
boot_gw1() {
    # A hierarchy of our own kind, whatever the machine has; seen by this script alone.
    umount -R /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 none /sys/fs/cgroup
    mkdir "$cgroup"
    # The device as distributions have it: open to all.
    mknod -m 666 "$work/tun" c 10 200
    sh -c "echo \$\$ >'$cgroup/cgroup.procs'; exec systemd-nspawn --register=no --keep-unit --quiet \
        --boot --directory='$root' --machine=gw1 --network-namespace-path='/run/netns/$GW1_NS' \
        --capability=CAP_NET_ADMIN --bind='$work/tun:/dev/net/tun' --console=read-only" </dev/null >"$work/console" 2>&1 &
    nspawn=$!
    until_ok 30 booted || fail "no boot: $(cat "$work/console")"
}
# systemd-nspawn's first child is another, in this script's own process namespace, and ends when it has made the machine's init.
booted() {
    init=$(pgrep -P "$nspawn" | head -n 1) && [ -n "$init" ] &&
        [ "$(readlink "/proc/$init/ns/pid")" != "$(readlink /proc/self/ns/pid)" ] && gw1 systemctl is-active multi-user.target
}

# What README.md says between two lines, without the indentation.
readme() { sed -n "/$1/,/$2/p" README.md | sed -n 's/^    //p'; }

# The install of README.md, as it stands there, on gw1; the files that it has copied, on gw2.
install_as_readme_says() {
    mkdir -p "$root/src/target/release" "$work/gw2/state"
    cp "$binary" "$root/src/target/release/wgha"
    cp -r dist "$root/src/"
    readme '^On both machines' '^On the first' | grep -e '^install ' -e '^useradd ' >"$root/src/install"
    readme '^On the first' '^The same' | grep '^wgha keygen' >>"$root/src/install"
    gw1 sh -ec 'cd /src; . ./install' || fail "the install of README.md"
    cp "$root/etc/wgha/cluster.key" "$work/gw2/cluster.key"

    readme '^The same `\/etc\/wgha\/wgha.toml`' '^The same `\/etc\/wireguard' >"$root/etc/wgha/wgha.toml"
    wg0_conf wg0 51820 10.8.0.1 | install -m 600 /dev/stdin "$root/etc/wireguard/wg0.conf"
    owners=$(readme '^The same `\/etc\/wireguard' '^## More' | grep '^chown ')
    gw1 sh -ec "$owners" || fail "README.md: $owners"
    cp "$root/etc/wireguard/wg0.conf" "$work/gw2/wg0.conf"
    sed -e "s|/etc/wgha/cluster.key|$work/gw2/cluster.key|" \
        -e "s|/etc/wireguard/wg0.conf|$work/gw2/wg0.conf|" \
        -e '/^user = "wgha"$/d' \
        -e "/^key_file/a state_dir = \"$work/gw2/state\"" "$root/etc/wgha/wgha.toml" >"$work/gw2/wgha.toml"
    printf '[control]\nsocket = "%s"\n' "$work/gw2/sock" >>"$work/gw2/wgha.toml"
}

# wg0_conf NAME PORT ADDRESS: a gateway's file, with scripts that need what gateways need.
wg0_conf() {
    cat <<EOF
[Interface]
PrivateKey = $GATEWAY_KEY
ListenPort = $2
Address = $3/24
PostUp = nft add table inet post_%i && sysctl -q -w net.ipv4.conf.%i.rp_filter=0 && ip rule add to 192.0.2.9 lookup main pref 3$2
PostUp = iptables -A FORWARD -i %i -m comment --comment post_%i -j ACCEPT
PreDown = ip rule del pref 3$2
PostDown = iptables -D FORWARD -i %i -m comment --comment post_%i -j ACCEPT
PostDown = nft delete table inet post_%i

[Peer]
PublicKey = $CLIENT_PUBLIC
AllowedIPs = ${3%.*}.2/32
EOF
}

start_gw2() {
    # Its own /run, where the control sockets of the embedded WireGuard are.
    ip netns exec "$GW2_NS" unshare -m sh -c "mount -t tmpfs none /run && exec '$binary' run --node gw2 --config '$work/gw2/wgha.toml'" \
        </dev/null >>"$work/gw2.log" 2>&1 &
    gw2_pid=$!
}

# The client: a cluster of one, whose wg0 is up as long as it runs.
start_client() {
    "$binary" keygen --out "$work/client.key"
    cat >"$work/client.toml" <<EOF
[cluster]
name = "client"
key_file = "$work/client.key"
state_dir = "$work/client-state"
[[node]]
name = "client"
addresses = ["127.0.0.1:5112"]
[[wireguard]]
interface = "wgc"
config = "$work/wgc.conf"
[control]
socket = "$work/client.sock"
EOF
    cat >"$work/wgc.conf" <<EOF
[Interface]
PrivateKey = $CLIENT_KEY
ListenPort = 40000
Address = 10.8.0.2/24
[Peer]
PublicKey = $GATEWAY_PUBLIC
Endpoint = $FLOATING:51820
AllowedIPs = 10.8.0.0/24
EOF
    chmod 600 "$work/wgc.conf"
    ip netns exec "$NET_NS" unshare -m sh -c "mount -t tmpfs none /run && exec '$binary' run --config '$work/client.toml'" \
        </dev/null >"$work/client.log" 2>&1 &
    client_pid=$!
}

# Only what this script started, by its number.
clean_up() {
    for pid in ${client_pid:-} ${gw2_pid:-} ${tracer:-}; do
        kill "$pid" 2>/dev/null || true
    done
    if [ -n "${init:-}" ]; then
        kill -KILL "$init" 2>/dev/null || true
    fi
    if [ -n "${nspawn:-}" ]; then
        until_ok 10 sh -c "! kill -0 $nspawn" || kill -KILL "$nspawn" || true
    fi
    wait 2>/dev/null || true
    if [ -d "$cgroup" ]; then
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
    fi
    rm -rf "$work"
}
