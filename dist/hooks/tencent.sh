#!/bin/sh
# What the hooks for Tencent Cloud share: who this machine is, its CAM role's credentials, the VPC API. Only sourced, after
# lib.sh and sign.sh.
#
# The API takes POST with JSON, and answers 200 with JSON also for errors.
#
# shellcheck disable=SC2034,SC2154 # set here, read by the hooks, and the other way round
conf_region='' conf_endpoint=https://vpc.tencentcloudapi.com conf_metadata=http://metadata.tencentyun.com
conf_secret_id='' conf_secret_key='' conf_secret_key_file=''
keys='region endpoint metadata secret_id secret_key secret_key_file'
secrets='secret_key'
codes_again='RequestLimitExceeded InvalidAddressIdStatus.NotPermit InvalidAddressState AuthFailure.SignatureExpire'
codes_again="$codes_again UnsupportedOperation.AddressStatusNotPermit UnsupportedOperation.InvalidAddressState"
codes_again="$codes_again OperationDenied.MutexTaskRunning UnsupportedOperation.MutexOperationTaskRunning FailedOperation.TaskFailed"
codes_unknown='InternalError InternalServerError'

# prepare_tencent: $region, $machine (the instance), $private_ip (its own address).
prepare_tencent() {
    check_sign
    metadata_at=$conf_metadata
    own_machine
    log_in "$conf_secret_id" secret_key tencent_metadata cam/security-credentials "CAM role" \
        '"\(.ExpiredTime - 300 | floor)", "\(.TmpSecretId) \(.TmpSecretKey) \(.Token)"'
    [ -z "$conf_region" ] || region=$conf_region
    plain "$conf" "$region" "$key_id"
}

tencent_metadata() { metadata "/latest/meta-data/$1" || no_metadata "$2" "${3:-}"; }

own_machine() {
    if ! cached identity; then
        tencent_metadata placement/region region
        identity=$http_body
        tencent_metadata instance-id "instance's id"
        identity="$identity $http_body"
        tencent_metadata local-ipv4 "private address"
        cached="$identity $http_body"
        case $cached in
        *[!A-Za-z0-9.\ -]* | ' '* | *' ' | *'  '*) unknown "the metadata service's answer cannot be understood: $(printable "$cached")" ;;
        esac
        cache_put identity 0 "$cached"
    fi
    region=${cached%% *} private_ip=${cached##* }
    machine=${cached#* }
    machine=${machine%% *}
}

# vpc ACTION BODY: one call. It returns 0 if it was done.
vpc() { vpc_call signed "$@"; }

# vpc_change ACTION BODY: as lib.sh's `change`.
vpc_change() { vpc_call signed_change "$@"; }

vpc_call() {
    sign_with="tc3 --key-id $key_id --service vpc --action $2 --api-version 2017-03-12 --region $region"
    "$1" POST "$conf_endpoint/" "$3" || return 1
    fields Response.RequestId Response.Error.Code Response.Error.Message
    [ -n "$field1" ] || not_understood
    [ -z "$field2" ]
}

api_error() {
    fields Response.Error.Code Response.Error.Message
    error_code=$field1 error_text=$(printable "$field2")
}

# refused_by_tencent WHAT: after a call that returned 1: its errors come with 200.
refused_by_tencent() {
    case $http_status in
    2??) ;;
    *) refused "$1" ;;
    esac
    api_error
    case $error_code in
    AuthFailure.SignatureExpire) ;;
    AuthFailure.UnauthorizedOperation) http_status=403 ;;
    AuthFailure*) refused_credentials "$1: $error_code ($error_text)" ;;
    # With whose limit it was behind a dot.
    RequestLimitExceeded.*) again "$1: $error_code ($error_text)" ;;
    InternalError.* | ServiceUnavailable | ServiceUnavailable.*) unknown "$1: $error_code ($error_text)" ;;
    esac
    # By the code alone: what is not known as passing must be mended by a person.
    http_status=400
    refused "$1"
}

# await_task WHAT: waits for the end of the task that the last answer names.
await_task() {
    aim=$1
    fields Response.TaskId
    [ -n "$field1" ] || not_understood
    number "$field1" "task of $1"
    task=$field1
    wait_until task_over
}

task_over() {
    vpc DescribeTaskResult "{\"TaskId\":$task}" || refused_by_tencent "$aim"
    fields Response.Result
    case $field1 in
    SUCCESS) return 0 ;;
    FAILED) again "$aim failed: task $task" ;;
    RUNNING) return 1 ;;
    *) not_understood ;;
    esac
}
