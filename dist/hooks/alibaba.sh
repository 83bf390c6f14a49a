#!/bin/sh
# What the hooks for Alibaba Cloud share: who this machine is, its RAM role's credentials, the VPC API. Only sourced, after
# lib.sh and sign.sh.
#
# The API takes POST with the parameters in the query, and answers in JSON.
#
# shellcheck disable=SC2034,SC2154 # set here, read by the hooks, and the other way round
conf_region='' conf_interface='' conf_endpoint='' conf_metadata=http://100.100.100.200
conf_access_key_id='' conf_access_key_secret='' conf_access_key_secret_file=''
keys='region interface endpoint metadata access_key_id access_key_secret access_key_secret_file'
secrets='access_key_secret'
codes_again='Throttling Throttling.User Throttling.Api IncorrectEipStatus IncorrectInstanceStatus TaskConflict OperationConflict'
codes_again="$codes_again IncorrectStatus.RouteEntry LastTokenProcessing SystemBusy SignatureNonceUsed InvalidTimeStamp.Expired"
codes_unknown='ServiceUnavailable InternalError UnknownError'

# prepare_alibaba: $region; $machine and $machine_type, this instance or its network interface, as the API has them.
prepare_alibaba() {
    check_sign
    metadata_at=$conf_metadata metadata_token=''
    own_machine
    log_in "$conf_access_key_id" access_key_secret alibaba_metadata ram/security-credentials "RAM role" \
        '"\(.Expiration | fromdate - 300)", "\(.AccessKeyId) \(.AccessKeySecret) \(.SecurityToken)"'
    [ -z "$conf_region" ] || region=$conf_region
    endpoint=${conf_endpoint:-https://vpc.$region.aliyuncs.com}
    plain "$conf" "$region" "$key_id"
}

# alibaba_metadata PATH WHAT [HINT]: its words into $http_body.
alibaba_metadata() {
    if [ -z "$metadata_token" ]; then
        # Where the hardened mode is off the token is not needed, and does no harm.
        metadata /latest/api/token 'header = "X-aliyun-ecs-metadata-token-ttl-seconds: 300"' PUT || no_metadata "$2"
        metadata_token=$http_body
    fi
    metadata "/latest/meta-data/$1" "header = \"X-aliyun-ecs-metadata-token: $metadata_token\"" || no_metadata "$2" "${3:-}"
}

own_machine() {
    if ! cached identity; then
        alibaba_metadata region-id region
        identity=$http_body
        if [ -n "$conf_interface" ]; then
            mac_of "$conf_interface"
            alibaba_metadata "network/interfaces/macs/$mac/network-interface-id" "network interface with $mac"
        else
            alibaba_metadata instance-id "instance's id"
        fi
        cached="$identity $http_body"
        case $cached in
        *[!A-Za-z0-9\ -]* | ' '* | *' ') unknown "the metadata service's answer cannot be understood: $(printable "$cached")" ;;
        esac
        cache_put identity 0 "$cached"
    fi
    region=${cached%% *} machine=${cached#* }
    machine_type=EcsInstance
    [ -z "$conf_interface" ] || machine_type=NetworkInterface
}

# vpc ACTION KEY=VALUE...: one call. It returns 0 for 2xx.
vpc() { vpc_call signed "$@"; }

# vpc_change ACTION KEY=VALUE...: as lib.sh's `change`.
vpc_change() { vpc_call signed_change "$@"; }

vpc_call() {
    how=$1 action=$2
    shift 2
    query="RegionId=$region"
    for pair; do
        plain "$conf" "$pair"
        percent "${pair#*=}"
        query="$query&${pair%%=*}=$percent"
    done
    sign_with="acs3 --key-id $key_id --action $action --api-version 2016-04-28"
    "$how" POST "$endpoint/?$query" || return 1
    case $http_body in
    *'"RequestId"'*) ;;
    *) unknown "$action: the answer cannot be understood: $(printable "$http_body")" ;;
    esac
}

# percent TEXT: for a query, into $percent.
percent() {
    percent='' percent_rest=$1
    while :; do
        percent_head=${percent_rest%%[/:+=@]*}
        percent=$percent$percent_head
        percent_rest=${percent_rest#"$percent_head"}
        case $percent_rest in
        /*) percent=$percent%2F ;;
        :*) percent=$percent%3A ;;
        +*) percent=$percent%2B ;;
        =*) percent=$percent%3D ;;
        @*) percent=$percent%40 ;;
        *) return 0 ;;
        esac
        percent_rest=${percent_rest#?}
    done
}

# {"Code": "...", "Message": "...", "RequestId": "..."}
api_error() {
    error_code='' error_text=''
    error_code=$(printf '%s' "$http_body" | jq -r '(.Code // "" | tostring), (.Message // "" | tostring)' 2>/dev/null) || return 0
    error_text=$(printable "${error_code#*"$newline"}")
    error_code=${error_code%%"$newline"*}
}

refused_by_alibaba() {
    api_error
    case $error_code in
    InvalidSecurityToken* | InvalidAccessKeyId* | SignatureDoesNotMatch | MissingSecurityToken | IncompleteSignature)
        refused_credentials "$1: $http_status $error_code ($error_text)"
        ;;
    esac
    refused "$1"
}
