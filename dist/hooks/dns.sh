#!/bin/sh
# What the hooks for DNS share: the record's name and type, and each node's own address. Only sourced, after lib.sh.
#
# A hook has the keys `name`, `addresses` and `ttl`, calls dns_record in prepare(), and compares what the server
# says with dns_holder.
#
# shellcheck disable=SC2034,SC2154 # set here, read by the hooks; conf_KEY comes from lib.sh

conf_name='' conf_addresses='' conf_ttl=60
dns_keys='name addresses ttl'

# dns_record: from the config $dns_name (lower case, without the last dot), $dns_type, $dns_address and $dns_ttl; $what.
dns_record() {
    dns_name=${conf_name%.}
    case $dns_name in
    '' | *[!a-zA-Z0-9._-]*) give_up "$conf: name: not a name of a host: $(printable "$conf_name")" ;;
    *[A-Z]*) dns_name=$(printf '%s' "$dns_name" | tr '[:upper:]' '[:lower:]') ;;
    esac
    case $conf_ttl in
    '' | *[!0-9]* | ????????*) give_up "$conf: ttl: not a number of seconds" ;;
    esac
    dns_ttl=$conf_ttl
    dns_own_address
    case $dns_address in
    *:*) dns_type=AAAA ;;
    *) dns_type=A ;;
    esac
    what="$dns_type record of $dns_name"
}

# Which of `addresses` is this node's.
dns_own_address() {
    dns_address=''
    [ -n "${WGHA_NODE:-}" ] || give_up "WGHA_NODE is not set: which of 'addresses' is this node's?"
    # A list of words: no pattern in it is meant for files.
    set -f
    for pair in $conf_addresses; do
        case $pair in
        "$WGHA_NODE="*) dns_address=${pair#*=} ;;
        *=*) ;;
        *) give_up "$conf: addresses: $(printable "$pair") is not NODE=ADDRESS" ;;
        esac
    done
    set +f
    case $dns_address in
    '') give_up "$conf: addresses: there is none for the node $WGHA_NODE" ;;
    *[!0-9a-fA-F:.]*) give_up "$conf: addresses: $(printable "$dns_address") is no IP address" ;;
    *:*)
        # As servers write it, so that it can be compared.
        dns_address=$(getent ahostsv6 "$dns_address") || give_up "$conf: addresses: the one of $WGHA_NODE is no IPv6 address"
        dns_address=${dns_address%% *}
        ;;
    esac
}

# dns_holder VALUES: what the server has, one a line, sets $mine and $holder. It is ours if ours is all there is.
dns_holder() {
    mine=no holder=nobody
    [ -n "$1" ] || return 0
    holder=$(printf '%s' "$1" | tr '\n' ' ')
    [ "$1" != "$dns_address" ] || mine=yes
}
