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
    [ -n "$dns_address" ] || give_up "$conf: addresses: there is none for the node $WGHA_NODE"
    found=$(printf '%s' "$dns_address" | dns_canonical) ||
        give_up "$conf: addresses: $(printable "$dns_address") is no IP address"
    dns_address=$found
}

# dns_canonical: the address on stdin as servers write it (RFC 5952), so that it can be compared. Fails if it is none.
dns_canonical() {
    awk '
        function bad() { wrong = 1; exit }
        function ipv4(text, n, part, i) {
            n = split(text, part, ".")
            if (n != 4) bad()
            for (i = 1; i <= 4; i++) if (part[i] !~ /^(0|[1-9][0-9]?[0-9]?)$/ || part[i] > 255) bad()
            print text
        }
        function ipv6(text, half, halves, n, left, right, i, start, length_, best) {
            halves = split(text, half, "::")
            if (halves > 2) bad()
            n = half[1] == "" ? 0 : split(half[1], left, ":")
            m = halves < 2 || half[2] == "" ? 0 : split(half[2], right, ":")
            if (halves < 2 ? n != 8 : n + m > 7) bad()
            for (i = 1; i <= 8; i++) {
                group[i] = i <= n ? left[i] : i > 8 - m ? right[i - 8 + m] : "0"
                if (group[i] !~ /^[0-9a-fA-F]+$/ || length(group[i]) > 4) bad()
                group[i] = tolower(group[i])
                sub(/^0+/, "", group[i])
                if (group[i] == "") group[i] = "0"
            }
            # The first of the longest runs of two zeros or more is left out.
            best = 1
            for (i = 1; i <= 8; i++) {
                length_ = group[i] == "0" ? length_ + 1 : 0
                if (length_ > best) { best = length_; start = i - length_ + 1 }
            }
            for (i = 1; i <= 8; i++) {
                if (start && i == start) text = (i == 1 ? "" : text) "::"
                if (start && i >= start && i < start + best) continue
                text = i == 1 ? group[i] : text (text ~ /:$/ ? "" : ":") group[i]
            }
            print text
        }
        { if (index($0, ":")) ipv6($0); else ipv4($0) }
        END { exit wrong }'
}

# dns_holder VALUES: what the server has, one a line, sets $mine and $holder. It is ours if ours is all there is.
dns_holder() {
    mine=no holder=nobody
    [ -n "$1" ] || return 0
    holder=$(printf '%s' "$1" | tr '\n' ' ')
    [ "$1" != "$dns_address" ] || mine=yes
}
