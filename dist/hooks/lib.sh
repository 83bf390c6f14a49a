#!/bin/sh
# What the claim hooks of this directory share: the contract with wgha, config, time, terms, HTTP. Only sourced.
#
# A hook is called as  HOOK CONFIG assert|verify|release  and ends with one line on stdout and
#   0 done or mine   3 not mine   4 unknown   75 try again later   78 give up: a person must look
# CONFIG has KEY=value lines (quotes around a value are taken off). It is parsed, never executed.
#
# How a hook is written:
#
#     . "${0%/*}/lib.sh"
#     conf_server='' conf_token='' ...            # every key of the config: conf_KEY with its default
#     keys='server token token_file endpoint'     # the keys it may have (`cache` is always known)
#     required='server'                           # those it must have
#     secrets='token'                             # those that are refused in a file which others can read
#     prepare() { ... }     # once: who am I, credentials; sets $what, for people: "floating IP 42"
#     look() { ... }        # asks who holds it: sets mine=yes|no and holder=TEXT ("nobody" if so)
#     take() { ... }        # makes it ours; called when it is not. The lib looks again afterwards
#     drop() { ... }        # gives it up; called when it is ours
#     hook "$@"             # the last line
#
# Within these, and never in a subshell or pipe (they set variables, or end the hook):
#     ask URL               # GET. Returns 0 for 2xx; $http_status, $http_body
#     change METHOD URL [BODY]   # every call that changes something: looks at the term and at dry run first
#     refused WHAT          # after a call that failed: ends the hook with the code that its status and
#                           # the API's error code deserve (see $codes_again, $codes_permanent, $codes_unknown)
#     json FILTER [JQ ARGUMENTS] # jq -r on $http_body into $json; what is no JSON ends the hook as unknown.
#                           # jq takes 35 ms to start (1.6): take all that is needed in one call
#     fields PATH...        # up to four plain values of $http_body, such as action.status or items.0.id, into $field1 to
#                           # $field4, without jq in 3 ms; empty for null and what is not there
#     rows LIST PATH...     # into $json: a line for each object in a list of $http_body, its values with a | behind each
#     again TEXT, unknown TEXT, give_up TEXT, finish CODE TEXT     # end the hook
#     bearer TOKEN          # sends "Authorization: Bearer TOKEN" from now on
#     secret_of KEY         # the secret in conf_KEY, or in the file conf_KEY_file, into $secret
#     await URL DONE FAILED STATE ID WHY  # waits for the end of an operation
#     metadata PATH [CURL CONFIG LINES]   # GET from 169.254.169.254; if that fails: no_metadata WHAT
#     mac_of INTERFACE      # into $mac
#     wait_until FUNCTION   # until it returns 0
#     number TEXT WHAT      # ends the hook if TEXT is no number
#                           # two names are special: "identity" is forgotten after a refusal, "credentials" after
#                           # refused_credentials TEXT, which tries again if credentials_from_cache=yes
#     cached NAME, cache_put NAME EXPIRES VALUE, cache_drop NAME
#
# A body is sent as $http_type, application/json unless set. Nothing secret is ever an argument of a program: curl
# reads its options from a pipe, so that a hook adds its own as lines to $http_config, not as arguments.
#
# shellcheck disable=SC2034 # set here, read by the hooks
set -u
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
name=${0##*/}
hooks=${0%/*}
newline='
'
tab='	'
# What a hook gives, and finds out.
keys='' required='' secrets='' codes_again='' codes_permanent='' codes_unknown=''
what='' mine=no holder=nobody
# What is being done, for people.
doing='' aim=''

# --- how a hook ends

finish() {
    printf '%s: %s\n' "$name" "$2"
    exit "$1"
}
again() { finish 75 "$1"; }
give_up() { finish 78 "$1"; }
# An unknown is never a loss: verify says so, the others try again.
unknown() {
    [ "$verb" != verify ] || finish 4 "unknown: $1"
    again "$1"
}

# --- time: /proc/uptime is read without a process and never jumps

# uptime: $uptime, in hundredths of a second.
uptime() {
    read -r uptime _ </proc/uptime
    uptime=${uptime%.*}${uptime#*.}
}

# left MAX: $left, the time in hundredths until the hook must have ended, at most MAX; in $left_s as seconds.
left() {
    uptime
    left=$((deadline - uptime))
    [ "$left" -gt 0 ] || unknown "no time left (WGHA_DEADLINE_S=${WGHA_DEADLINE_S:-30})${doing:+: ${aim:-$doing}}"
    [ "$left" -le "$1" ] || left=$1
    left_s=$((left % 100))
    [ "$left_s" -gt 9 ] || left_s=0$left_s
    left_s=$((left / 100)).$left_s
}

# wait_until FUNCTION: until it returns 0, with growing pauses. Ends the hook when time or the term is over.
wait_until() {
    pause=1
    until "$1"; do
        left 100
        sleep "0.$pause"
        [ "$pause" -ge 8 ] || pause=$((pause * 2))
        still_master
    done
}

# --- config

read_conf() {
    [ -r "$1" ] || give_up "cannot read the config file $1"
    [ -f "$1" ] || give_up "$1 is no config file"
    line_number=0
    while IFS= read -r line || [ -n "$line" ]; do
        line_number=$((line_number + 1))
        trim "$line"
        case $trimmed in '' | '#'*) continue ;; esac
        # What is no KEY=value could be a secret on the wrong line, and is not repeated.
        case $trimmed in *=*) ;; *) give_up "$1 line $line_number: not KEY=value" ;; esac
        value=${trimmed#*=}
        trim "${trimmed%%=*}"
        key=$trimmed
        case $key in '' | *[!a-z0-9_]*) give_up "$1 line $line_number: not a key" ;; esac
        case " $keys cache " in
        *" $key "*) ;;
        *) give_up "$1 line $line_number: unknown key '$key'; there are: $keys cache" ;;
        esac
        case " $secrets " in *" $key "*) private "$conf" ;; esac
        trim "$value"
        case $trimmed in
        '"'*'"') trimmed=${trimmed#?} trimmed=${trimmed%?} ;;
        "'"*"'") trimmed=${trimmed#?} trimmed=${trimmed%?} ;;
        esac
        # All that enters a URL, a header or a JSON text: none needs these, and so none needs escaping.
        case $trimmed in *'"'* | *\\* | *[[:cntrl:]]*) give_up "$1 line $line_number: a quote, backslash or control character in $key" ;; esac
        eval "conf_$key=\$trimmed"
    done <"$1"
    for key in $required; do
        eval "[ -n \"\$conf_$key\" ]" || give_up "$1: '$key' is missing"
    done
}

# trim TEXT: without white space around it, into $trimmed.
trim() {
    trimmed=${1#"${1%%[![:space:]]*}"}
    trimmed=${trimmed%"${trimmed##*[![:space:]]}"}
}

# number TEXT WHAT: ends the hook unless it is one.
number() {
    case $1 in '' | *[!0-9]*) unknown "$2 is no number: $(printable "$1")" ;; esac
}

# private FILE: gives up if others than its owner can reach what is in it.
private() {
    case $(ls -Lld -- "$1" 2>&1) in
    -???------*) ;;
    *) give_up "$1 holds a secret: it must be a file that only its owner can read (chmod 600)" ;;
    esac
}

secret_of() {
    eval "secret=\$conf_$1 secret_file=\${conf_${1}_file:-}"
    if [ -z "$secret" ]; then
        [ -n "$secret_file" ] || give_up "$conf: neither '$1' nor '${1}_file' is given"
        [ -r "$secret_file" ] || give_up "cannot read $secret_file"
        private "$secret_file"
        read -r secret <"$secret_file" || [ -n "$secret" ] || give_up "$secret_file is empty"
    fi
    case $secret in *'"'* | *\\* | *[[:cntrl:]]*) give_up "$1 has a quote, backslash or control character in it" ;; esac
}

# --- what is remembered until the next boot, in files of the daemon's user: one line each, "EXPIRES VALUE"

# cached NAME: its value into $cached; 1 if there is none or it has expired.
cached() {
    cached=''
    [ -r "$cache/$cache_prefix.$1" ] && read -r expires cached <"$cache/$cache_prefix.$1" || return 1
    case $expires in
    0) return 0 ;;
    '' | *[!0-9]*) ;;
    *) [ "$expires" -le "$(date +%s)" ] || return 0 ;;
    esac
    cached=''
    return 1
}

# cache_put NAME EXPIRES VALUE: EXPIRES in seconds since 1970; 0: never. A directory that cannot be written is no
# failure: all is then asked for each time.
cache_put() {
    (
        umask 077
        [ -d "$cache" ] || mkdir -p "$cache"
        printf '%s %s\n' "$2" "$3" >"$cache/$cache_prefix.$1.$$" &&
            mv -f "$cache/$cache_prefix.$1.$$" "$cache/$cache_prefix.$1"
    ) 2>/dev/null
    return 0
}

cache_drop() { rm -f "$cache/$cache_prefix.$1"; }

# Names its own requirements once, not 25 ms in each run.
check_tools() {
    ! cached tools || return 0
    found=$(curl --version 2>/dev/null) || give_up "curl is missing: 7.86 or later is needed (apt-get install curl)"
    found=${found#curl }
    major=${found%%.*} minor=${found#*.}
    minor=${minor%%.*}
    [ "$major" -gt 7 ] || { [ "$major" = 7 ] && [ "$minor" -ge 86 ]; } ||
        give_up "curl is ${found%% *}: 7.86 or later is needed (signatures for AWS, headers in --write-out)"
    found=$(jq --version 2>/dev/null) || give_up "jq is missing: 1.6 or later is needed (apt-get install jq)"
    found=${found#jq-}
    case $found in
    1.[0-5] | 1.[0-5][!0-9]*) give_up "jq is $found: 1.6 or later is needed" ;;
    esac
    cache_put tools 0 ok
}

# --- the term

# still_master: ends the hook if this node is not, or no longer, the master of the term that the hook was called for.
still_master() {
    [ "$verb" != verify ] && [ -n "${WGHA_TERM_FILE:-}" ] || return 0
    term='' node=''
    # The brace keeps the shell's own message about a missing file off the output.
    { read -r term node _ <"$WGHA_TERM_FILE"; } 2>/dev/null
    [ -n "$node" ] || again "nothing was changed: no term in $WGHA_TERM_FILE"
    [ "$term $node" = "${WGHA_TERM:-} ${WGHA_NODE:-}" ] ||
        again "stopped: it is term $term of $node now, not term ${WGHA_TERM:-none} of ${WGHA_NODE:-nobody}"
}

# --- HTTP

# Lines of curl's config that go with every call, such as headers; and one header of the answer that is wanted.
http_config=''
http_wanted=''
http_max=1000 # hundredths of a second for one call
http_type=application/json
error_code='' error_text=''

bearer() {
    case $1 in '' | *[!A-Za-z0-9._~+/=:-]*) give_up "this is no token: characters in it that tokens do not have" ;; esac
    http_config="header = \"Authorization: Bearer $1\""
}

# http METHOD URL [BODY]: $http_status (000: none came), $http_body, $http_header (the wanted one), $http_error.
http() {
    doing="$1 $2"
    left "$http_max"
    http_options="silent
request = \"$1\"
url = \"$2\"
user-agent = \"wgha-hook\"
connect-timeout = 3
max-time = $left_s
max-filesize = 1048576
proto = \"=http,https\"
write-out = \"\\n%{http_code}\\t%header{${http_wanted:-x-none}}\\t%{errormsg}\"
$http_config"
    if [ $# -gt 2 ]; then
        # --data alone would say that it is a form.
        http_out=$(printf '%s' "$3" | curl -q --config /dev/fd/3 --data-binary @- 3<<CONFIG
header = "Content-Type: $http_type"
$http_options
CONFIG
        )
    else
        http_out=$(curl -q --config /dev/fd/3 3<<CONFIG
$http_options
CONFIG
        )
    fi
    http_code=$?
    # Cut off by the hook's own end: what it waited for says more than that.
    [ "$http_code" != 28 ] || left 1
    http_body=${http_out%"$newline"*}
    http_error=${http_out##*"$newline"}
    http_status=${http_error%%"$tab"*}
    http_error=${http_error#*"$tab"}
    http_header=${http_error%%"$tab"*}
    http_error=${http_error#*"$tab"}
    [ "$http_code" = 0 ] || http_status=000
    case $http_status in 2??) return 0 ;; esac
    return 1
}

ask() { http GET "$1"; }

change() {
    still_master
    [ "${WGHA_DRY_RUN:-}" != 1 ] || finish 0 "dry run: would $1 $2"
    http "$@"
}

# metadata PATH [CONFIG LINES [METHOD]]: from the machine's own metadata service, never through a proxy. Some clouds have
# it elsewhere.
metadata_at=http://169.254.169.254
metadata() {
    kept_config=$http_config kept_max=$http_max
    http_config="noproxy = \"*\"${2:+$newline$2}" http_max=300
    http "${3:-GET}" "$metadata_at$1"
    metadata_result=$?
    http_config=$kept_config http_max=$kept_max
    return "$metadata_result"
}

# no_metadata WHAT: what an answer other than 2xx of the metadata service means.
no_metadata() {
    case $http_status in
    4[0-9][0-9]) [ "$http_status" = 429 ] || give_up "no $1: the metadata service says $http_status${2:+ ($2)}" ;;
    esac
    unknown "no $1: metadata service: ${http_error:-status $http_status}"
}

# mac_of INTERFACE: its hardware address, into $mac.
mac_of() {
    [ -r "/sys/class/net/$1/address" ] || give_up "there is no interface $1"
    read -r mac <"/sys/class/net/$1/address"
}

json() {
    # Of no text at all jq says success.
    case $http_body in *[![:space:]]*) ;; *) not_understood ;; esac
    # The dot keeps empty lines at the end, which $() takes off.
    json=$(printf '%s' "$http_body" | jq -r "$@" 2>/dev/null && printf .) || not_understood
    json=${json%"$newline".}
}

# json_secret: as json, of an answer that holds credentials and is not shown.
json_secret() {
    http_secret=yes
    json "$@"
    http_secret=''
}

http_secret=''
not_understood() {
    [ -z "$http_secret" ] || unknown "$doing: the answer cannot be understood, and may hold what is secret"
    unknown "$doing: the answer cannot be understood: $(printable "$http_body")"
}

fields() {
    json=$(printf '%s' "$http_body" | awk -v paths="$*" -f "$hooks/fields.awk") || not_understood
    field1='' field2='' field3='' field4=''
    {
        IFS= read -r field1
        IFS= read -r field2
        IFS= read -r field3
        IFS= read -r field4
    } <<FIELDS
$json
FIELDS
}

rows() {
    list_at=$1
    shift
    json=$(printf '%s' "$http_body" | awk -v list_at="$list_at" -v paths="$*" -f "$hooks/fields.awk") || not_understood
}

# await URL DONE FAILED STATE ID WHY: waits for the end of an operation that the last answer is about. The last three are
# paths for `fields`: its state, which is DONE or FAILED at the end, its id (URL/ID is where to ask again) and an error,
# which means failure also of what is DONE. $aim says what it is for.
await() {
    operation_at=$1 operation_done=$2 operation_failed=$3
    operation_fields="$4 $5 $6"
    operation_ends || wait_until operation_over
}

operation_over() {
    ask "$operation_at/$operation_id" || refused "$aim"
    operation_ends
}

operation_ends() {
    # shellcheck disable=SC2086 # three paths
    fields $operation_fields
    operation_id=$field2
    case $field1 in
    "$operation_failed") again "$aim failed: ${field3:-no reason given}" ;;
    "$operation_done") [ -z "$field3" ] || again "$aim failed: $field3" ;;
    '') not_understood ;;
    *) return 1 ;;
    esac
}

# printable TEXT: its first 200 characters on one line.
printable() { printf '%.400s' "$1" | tr -sc '[:alnum:][:punct:]' ' ' | cut -c1-200; }

# api_error: $error_code and $error_text of what the API said. An API that says it otherwise has its own.
api_error() {
    error_code='' error_text=''
    error_code=$(printf '%s' "$http_body" | jq -r '
        [.error, .NeutronError, .] | map(objects)[0]
        | (.errors[0].reason? // .status // .code // .id // .type // "" | tostring), (.message // "" | tostring)' 2>/dev/null) ||
        return 0
    error_text=$(printable "${error_code#*"$newline"}")
    error_code=${error_code%%"$newline"*}
}

refused() {
    [ "$http_status" != 000 ] || unknown "$1: ${http_error:-no answer}"
    api_error
    said="$1: $http_status ${error_code:-}${error_text:+ ($error_text)}"
    case " $codes_again " in *" ${error_code:-none} "*) again "$said" ;; esac
    case " $codes_unknown " in *" ${error_code:-none} "*) unknown "$said" ;; esac
    # A card or machine id that is remembered may be that of one that is gone.
    cache_drop identity
    case " $codes_permanent " in *" ${error_code:-none} "*) give_up "$said" ;; esac
    case $http_status in
    409 | 412 | 423 | 429) again "$said" ;;
    4*)
        [ "$http_status" != 408 ] || unknown "$said"
        # Something between here and the API may have answered.
        [ -n "$error_code$error_text" ] || unknown "$1: $http_status, not the API's words: $(printable "$http_body")"
        [ "$http_status" != 401 ] || refused_credentials "$said"
        give_up "$said"
        ;;
    esac
    unknown "$said"
}

# refused_credentials TEXT: those from the cache may have been taken back before their time: new ones next time.
credentials_from_cache=''
refused_credentials() {
    cache_drop credentials
    [ -z "$credentials_from_cache" ] || again "$1; new credentials are fetched next time"
    give_up "$1"
}

# --- a hook's run

hook() {
    conf=${1:-} verb=${2:-none}
    case $#$verb in
    2assert | 2verify | 2release) ;;
    *) finish 78 "usage: $name CONFIG assert|verify|release" ;;
    esac
    uptime
    deadline=${WGHA_DEADLINE_S:-30}
    deadline=${deadline%%.*}
    case $deadline in '' | *[!0-9]*) give_up "WGHA_DEADLINE_S=${WGHA_DEADLINE_S:-} is no number" ;; esac
    # Half a second to say how it went, before the daemon kills it.
    deadline=$((uptime + deadline * 100 - 50))
    conf_cache=/run/wgha/hooks
    read_conf "$conf"
    cache=$conf_cache
    cache_prefix=all
    check_tools
    # What is remembered hangs on these, and with another of them it is not looked at any more.
    cache_prefix=$(printf '%s\n' "$conf" "${conf_interface:-}" "${conf_region:-}" "${conf_auth_url:-}" \
        "${conf_application_credential_id:-}" "${conf_client_id:-}" "${conf_audience:-}" "${conf_metadata:-}" | cksum)
    cache_prefix=$name-${cache_prefix%% *}
    prepare
    "run_$verb"
}

run_verify() {
    look
    if [ "$mine" != yes ]; then
        # A read may be stale: it counts when it is said twice.
        sleep 1
        look
    fi
    [ "$mine" != yes ] || finish 0 "$what is here"
    finish 3 "$what is not here: $holder"
}

run_assert() {
    look
    [ "$mine" != yes ] || finish 0 "$what is here already"
    before=$holder
    take
    # What was read right after a change may be from before it.
    wait_until arrived
    finish 0 "$what is here now, before: $before"
}

run_release() {
    look
    [ "$mine" = yes ] || finish 0 "$what is not here, nothing to release: $holder"
    drop
    wait_until gone
    finish 0 "$what is released, now: $holder"
}

arrived() {
    aim="$what was asked for, but it is not here: $holder"
    look
    [ "$mine" = yes ]
}

gone() {
    aim="$what was given up, but it is still here"
    look
    [ "$mine" != yes ]
}
