#!/bin/sh
# What the hooks for Google Cloud share: who this machine is, its service account's token, operations. Only sourced, after
# lib.sh.
#
# shellcheck disable=SC2034,SC2154 # set here, read by the hooks, and the other way round
conf_project='' conf_endpoint=https://compute.googleapis.com/compute/v1
keys='project endpoint'
codes_again='rateLimitExceeded userRateLimitExceeded quotaExceeded resourceNotReady resourceInUseByAnotherResource alreadyExists'
codes_unknown='backendError internalError'

# prepare_gcp: $instance, $zone, $network (names), $project; $api, the URL of all that the project has.
prepare_gcp() {
    own_instance
    gcp_login
    bearer "$token"
    api=$conf_endpoint/projects/$project
}

gcp_metadata() {
    metadata "/computeMetadata/v1/$1" 'header = "Metadata-Flavor: Google"' || no_metadata "$2" "${3:-}"
}

own_instance() {
    if ! cached identity; then
        gcp_metadata instance/name "instance's name"
        cached=$http_body
        # projects/NUMBER/zones/ZONE
        gcp_metadata instance/zone zone
        cached="$cached ${http_body##*/}"
        # projects/NUMBER/networks/NETWORK
        gcp_metadata instance/network-interfaces/0/network network
        cached="$cached ${http_body##*/}"
        gcp_metadata project/project-id project
        cached="$cached $http_body"
        case $cached in
        *[!a-z0-9:.\ -]* | ' '* | *' ' | *'  '*) unknown "the metadata service's answer cannot be understood: $(printable "$cached")" ;;
        esac
        cache_put identity 0 "$cached"
    fi
    instance=${cached%% *} project=${cached##* }
    cached=${cached#* }
    zone=${cached%% *} network=${cached#* }
    network=${network%% *}
    [ -z "$conf_project" ] || project=$conf_project
}

gcp_login() {
    if cached credentials; then
        credentials_from_cache=yes
        token=$cached
        return 0
    fi
    gcp_metadata instance/service-accounts/default/token credentials "give the instance a service account"
    json_secret '(now + (.expires_in // error("none")) - 60 | floor), (.access_token // error("none"))'
    token=${json#*"$newline"}
    cache_put credentials "${json%%"$newline"*}" "$token"
}

# await_gcp SCOPE WHAT: the answer is an operation, which ends later; SCOPE is "global", "regions/R" or "zones/Z".
await_gcp() {
    aim=$2
    # Of what went wrong there is a list, in an operation that is DONE.
    await "$api/$1/operations" DONE none status name error.errors.0.code
}
