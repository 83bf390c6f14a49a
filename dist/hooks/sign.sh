#!/bin/sh
# What the hooks share whose API's signatures curl cannot make: `wgha sign` makes them. Only sourced, after lib.sh.
#
# A hook sets $sign_with, words for `wgha sign` without anything secret, and $sign_secret or $sign_secret_file.
#
# shellcheck disable=SC2034,SC2154 # set here, read by the hooks, and the other way round

# The secret goes through a pipe: it is in no argument and in no file of ours.
sign_with='' sign_secret='' sign_secret_file=/dev/fd/4

check_sign() {
    command -v wgha >/dev/null || give_up "wgha is not in the PATH: it signs this API's calls (wgha sign)"
}

# signed METHOD URL [BODY]: one call. It returns 0 for 2xx.
signed() {
    doing="$1 $2"
    # shellcheck disable=SC2086 # words
    if [ $# -gt 2 ]; then
        sign=$(printf '%s' "$3" | wgha sign $sign_with --curl --content-type "$http_type" --secret-file "$sign_secret_file" \
            --body /dev/stdin "$1" "$2" 2>&1 4<<SECRET
$sign_secret
SECRET
        )
    else
        sign=$(wgha sign $sign_with --curl --secret-file "$sign_secret_file" "$1" "$2" 2>&1 4<<SECRET
$sign_secret
SECRET
        )
    fi
    case $sign in
    'header = '*) ;;
    *) give_up "cannot sign $1 $2: $(printable "$sign")" ;;
    esac
    # The body's type is sent by `http` already.
    http_config=$(printf '%s\n' "$sign" | sed '/^header = "[Cc]ontent-[Tt]ype: /d')
    http "$@"
}

# signed_change METHOD URL [BODY]: as lib.sh's `change`.
signed_change() {
    still_master
    [ "${WGHA_DRY_RUN:-}" != 1 ] || finish 0 "dry run: would $1 $2"
    signed "$@"
}

# log_in ID SECRET METADATA PATH ROLE FILTER: $key_id and $sign_secret, from the config (ID and the name of the secret's key), or
# else those of the instance's role until five minutes before their end. METADATA is a function that asks the metadata service;
# FILTER makes two lines of its answer: the seconds since 1970 until which they are remembered, and "ID SECRET TOKEN".
log_in() {
    if [ -n "$1" ]; then
        secret_of "$2"
        key_id=$1 sign_secret=$secret
        return 0
    fi
    if cached credentials; then
        credentials_from_cache=yes
    else
        "$3" "$4/" credentials "give the instance a $5"
        "$3" "$4/$http_body" credentials
        json_secret "$6"
        cached=${json#*"$newline"}
        cache_put credentials "${json%%"$newline"*}" "$cached"
    fi
    key_id=${cached%% *}
    cached=${cached#* }
    sign_secret="${cached%% *}$newline${cached#* }"
}

# plain WHAT VALUE...: ends the hook if one is not of the characters that ids, addresses and names have.
plain() {
    plain_what=$1
    shift
    for plain in "$@"; do
        case $plain in
        *[!A-Za-z0-9._:/+=@-]*) give_up "$plain_what: characters that do not belong there: $(printable "$plain")" ;;
        esac
    done
}
