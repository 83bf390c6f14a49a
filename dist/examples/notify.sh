#!/bin/sh
# A hook for wgha: says in the system log what became of this node.
#
#     [[hook]]
#     on = ["master", "backup", "fault", "stop"]
#     run = ["/etc/wgha/notify.sh"]
#
# Called as keepalived calls its notify scripts:
#     notify.sh INSTANCE <cluster> MASTER|BACKUP|FAULT|STOP <priority>
# and with WGHA_CLUSTER, WGHA_NODE, WGHA_ROLE, WGHA_OLD_ROLE, WGHA_TERM, WGHA_REASON, WGHA_MASTER,
# WGHA_FLOATING_IPS and WGHA_INTERFACES (separated by spaces) and WGHA_DEADLINE_S.
#
# Hooks run one at a time. This one has WGHA_DEADLINE_S seconds; after them, or when the role changes
# again, it gets SIGTERM and 2 s later SIGKILL, with everything that it started. What it prints goes
# into wgha's log. WGHA_TERM grows with every takeover: hand it on to whatever must tell an old order
# from a new one.
set -eu

cluster=$2
state=$3

case $state in
MASTER)
    echo "$cluster: $WGHA_NODE serves $WGHA_FLOATING_IPS on $WGHA_INTERFACES" \
        "(term $WGHA_TERM: $WGHA_REASON)"
    # For example: start what must run on the serving gateway alone. (Takes root: dist/systemd/root.conf.)
    # systemctl start my-service
    ;;
BACKUP)
    echo "$cluster: $WGHA_NODE stands by, master is ${WGHA_MASTER:-unknown} ($WGHA_REASON)"
    # systemctl stop my-service
    ;;
FAULT)
    echo "$cluster: $WGHA_NODE cannot serve ($WGHA_REASON)" >&2
    # systemctl stop my-service
    ;;
STOP)
    echo "$cluster: $WGHA_NODE ends"
    # systemctl stop my-service
    ;;
*)
    echo "$cluster: unknown state $state" >&2
    exit 1
    ;;
esac
