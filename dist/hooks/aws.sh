#!/bin/sh
# What the hooks for AWS share: who this machine is, credentials, EC2's Query API. Only sourced, after lib.sh.
#
# EC2 takes POST with a form and answers in XML. curl signs it (--aws-sigv4): the session token is among what it signs
# from 7.86 on, and a query string would have to be sorted before 8.3, so that nothing but POST is used.
#
# shellcheck disable=SC2034,SC2154 # set here, read by the hooks, and the other way round
conf_region='' conf_interface='' conf_endpoint='' conf_access_key_id='' conf_secret_access_key='' conf_secret_access_key_file=''
keys='region interface endpoint access_key_id secret_access_key secret_access_key_file'
secrets='secret_access_key'
codes_again='RequestLimitExceeded Throttling ThrottlingException ResourceLimitExceeded PriorRequestNotComplete'
codes_unknown='InternalError InternalFailure Unavailable ServiceUnavailable'

# prepare_aws: $region; $eni and $subnet of the network card; $aws_credentials as lines of curl's config.
prepare_aws() {
    metadata_token=''
    own_card
    aws_login
    [ -z "$conf_region" ] || region=$conf_region
    endpoint=${conf_endpoint:-https://ec2.$region.amazonaws.com}
}

# imds PATH WHAT: its words into $http_body. A 404 says that there is no WHAT.
imds() {
    if [ -z "$metadata_token" ]; then
        metadata /latest/api/token 'header = "X-aws-ec2-metadata-token-ttl-seconds: 300"' PUT || no_metadata "$2"
        [ -n "$http_body" ] || unknown "no $2: the metadata service gives no token"
        metadata_token=$http_body
    fi
    metadata "/latest/$1" "header = \"X-aws-ec2-metadata-token: $metadata_token\"" || no_metadata "$2" "${3:-}"
    case $http_body in '' | *[\ \"\\\<]*) [ "${4:-}" = any ] || unknown "the metadata service gives no $2: $(printable "$http_body")" ;; esac
}

own_card() {
    if ! cached identity; then
        imds meta-data/placement/region region
        cached=$http_body
        if [ -n "$conf_interface" ]; then
            mac_of "$conf_interface"
        else
            imds meta-data/mac "hardware address"
            mac=$http_body
        fi
        imds "meta-data/network/interfaces/macs/$mac/interface-id" "network interface with $mac"
        cached="$cached $http_body"
        imds "meta-data/network/interfaces/macs/$mac/subnet-id" "subnet of $mac"
        cached="$cached $http_body"
        cache_put identity 0 "$cached"
    fi
    region=${cached%% *} subnet=${cached##* }
    eni=${cached#* }
    eni=${eni%% *}
}

# From the config, or else those of the instance's role, until five minutes before their end.
aws_login() {
    if [ -n "$conf_access_key_id" ]; then
        secret_of secret_access_key
        cached="$conf_access_key_id $secret "
    elif cached credentials; then
        credentials_from_cache=yes
    else
        imds meta-data/iam/security-credentials/ credentials "give the instance a profile with a role"
        imds "meta-data/iam/security-credentials/$http_body" credentials "" any
        json_secret '"\(.Expiration | fromdate - 300)", "\(.AccessKeyId) \(.SecretAccessKey) \(.Token)"'
        cached=${json#*"$newline"}
        cache_put credentials "${json%%"$newline"*}" "$cached"
    fi
    case $cached in '' | *[!A-Za-z0-9/+=_.\ -]*) unknown "credentials that cannot be understood" ;; esac
    aws_credentials=${cached#* }
    aws_session=${aws_credentials#* }
    aws_credentials="user = \"${cached%% *}:${aws_credentials%% *}\""
    [ -z "$aws_session" ] || aws_credentials="$aws_credentials${newline}header = \"X-Amz-Security-Token: $aws_session\""
}

# ec2 ACTION KEY=VALUE...: one call. It returns 0 for 2xx.
ec2() {
    action=$1
    shift
    http_config="aws-sigv4 = \"aws:amz:$region:ec2\"
$aws_credentials
data-urlencode = \"Action=$action\"
data-urlencode = \"Version=2016-11-15\""
    for pair; do
        http_config="$http_config${newline}data-urlencode = \"$pair\""
    done
    http POST "$endpoint/" || return 1
    case $http_body in
    *"<${action}Response"*) ;;
    *) unknown "$action: the answer cannot be understood: $(printable "$http_body")" ;;
    esac
}

# ec2_change ACTION KEY=VALUE...: as lib.sh's `change`; a dry run asks AWS whether it would be allowed.
ec2_change() {
    still_master
    if [ "${WGHA_DRY_RUN:-}" = 1 ]; then
        ! ec2 "$@" DryRun=true || unknown "dry run of $1: $endpoint does not know DryRun, and may have done it"
        api_error
        [ "$http_status $error_code" != "412 DryRunOperation" ] || finish 0 "dry run: $1 is allowed"
        refused_by_aws "dry run of $1"
    fi
    ec2 "$@"
}

# xml TAG: what is in the first such element of the answer, into $value; empty if there is none.
xml() {
    value=''
    case $http_body in *"<$1>"*"</$1>"*) ;; *) return 0 ;; esac
    value=${http_body#*"<$1>"}
    value=${value%%"</$1>"*}
}

# In AWS's XML instead of JSON.
api_error() {
    xml Code
    error_code=$value
    xml Message
    error_text=$(printable "$value")
}

refused_by_aws() {
    api_error
    case $error_code in
    AuthFailure | ExpiredToken | ExpiredTokenException | InvalidClientTokenId | UnrecognizedClientException)
        refused_credentials "$1: $http_status $error_code ($error_text)"
        ;;
    RequestExpired)
        # The credentials' time is over, or this machine's clock is wrong by minutes.
        cache_drop credentials
        again "$1: $error_code ($error_text)"
        ;;
    esac
    refused "$1"
}
