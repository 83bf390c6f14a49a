#!/usr/bin/env python3
"""Makes vectors.json with the providers' own clients (PyPI):

    pip install oci tencentcloud-sdk-python-common alibabacloud_openapi_util alibabacloud_tea
    python make.py > vectors.json

The RSA keys beside it were made for this (openssl genrsa 2048) and are used nowhere else.
"""

import json
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import requests
from alibabacloud_openapi_util.client import Client as Alibaba
from oci.signer import Signer
from Tea.request import TeaRequest
from tencentcloud.common import abstract_client, credential
from tencentcloud.common.http.request import RequestInternal
from tencentcloud.common.profile.client_profile import ClientProfile

HERE = Path(__file__).parent
TOKEN = "CAISxxx//+=token"
# A leap day, a Thursday, the first second of a year, now.
TIMES = (1709164800, 1391721100, 1767225600, 1795341600)


def rfc3339(unix):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix))


def acs3(unix, url, method="POST", body=None, token=None, content_type=None):
    parts = urlsplit(url)
    nonce = f"nonce-{unix}"
    request = TeaRequest()
    request.method, request.pathname = method, parts.path
    request.query = dict(parse_qsl(parts.query, keep_blank_values=True))
    payload = Alibaba.hex_encode(Alibaba.hash((body or "").encode(), "ACS3-HMAC-SHA256"))
    headers = {
        "host": parts.netloc,
        "x-acs-action": "DescribeEipAddresses",
        "x-acs-version": "2016-04-28",
        "x-acs-date": rfc3339(unix),
        "x-acs-signature-nonce": nonce,
        "x-acs-content-sha256": payload,
    }
    if token:
        headers |= {"x-acs-accesskey-id": "LTAI-id", "x-acs-security-token": token}
    if body is not None:
        headers["content-type"] = content_type
    request.headers = headers
    authorization = Alibaba.get_authorization(request, "ACS3-HMAC-SHA256", payload, "LTAI-id", "secret/of+alibaba")
    return {
        "scheme": "acs3", "unix": unix, "method": method, "url": url, "body": body, "content_type": content_type,
        "key_id": "LTAI-id", "secret": "secret/of+alibaba", "token": token, "nonce": nonce,
        "action": "DescribeEipAddresses", "version": "2016-04-28",
        "headers": {k: v for k, v in headers.items() if k != "host"} | {"Authorization": authorization},
    }  # fmt: skip


def tc3(unix, params, region="eu-frankfurt", token=None):
    host = "vpc.tencentcloudapi.com"
    client = abstract_client.AbstractClient(credential.Credential("AKID-id", "secret/of+tencent", token), region, ClientProfile())
    client._service, client._apiVersion = "vpc", "2017-03-12"
    client._sdkVersion = "none"
    request = RequestInternal(host, "POST", "/")
    real, abstract_client.time.time = abstract_client.time.time, lambda: unix
    try:
        client._build_req_with_tc3_signature("DescribeAddresses", params, request)
    finally:
        abstract_client.time.time = real
    body = request.data if isinstance(request.data, str) else request.data.decode()
    names = ("Content-Type", "X-TC-Action", "X-TC-Version", "X-TC-Timestamp", "X-TC-Region", "X-TC-Token", "Authorization")
    return {
        "scheme": "tc3", "unix": unix, "method": "POST", "url": f"https://{host}/", "body": body,
        "content_type": request.header["Content-Type"], "key_id": "AKID-id", "secret": "secret/of+tencent", "token": token,
        "service": "vpc", "action": "DescribeAddresses", "version": "2017-03-12", "region": region or None,
        "headers": {name: str(request.header[name]) for name in names if request.header.get(name)},
    }  # fmt: skip


def oci(unix, method, url, body=None, key="oci-pkcs8.pem"):
    ids = ("ocid1.tenancy.oc1..aaaa", "ocid1.user.oc1..bbbb", "20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34")
    signer = Signer(*ids, str(HERE / key))
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(unix))
    request = requests.Request(method, url, data=body, headers={"date": date, "content-type": "application/json"}).prepare()
    # As `requests` gives it, a PUT without body has no length.
    if method == "PUT" and not body:
        request.headers["content-length"] = "0"
    signed = signer(request)
    names = ("date", "content-type", "x-content-sha256", "authorization") if method == "PUT" else ("date", "authorization")
    return {
        "scheme": "oci", "unix": unix, "method": method, "url": url, "body": body, "content_type": "application/json",
        "key_id": "/".join(ids), "secret_file": key,
        "headers": {name: signed.headers[name] for name in names},
    }  # fmt: skip


def main():
    vpc = "https://vpc.eu-central-1.aliyuncs.com"
    iaas = "https://iaas.eu-frankfurt-1.oraclecloud.com/20160918"
    vectors = [
        *(acs3(unix, f"{vpc}/?RegionId=eu-central-1&AllocationId=eip-1") for unix in TIMES),
        acs3(TIMES[0], f"{vpc}/"),
        acs3(TIMES[0], f"{vpc}/?b=2&a=1&B=3&a-b=4&DryRun=true"),
        acs3(TIMES[0], f"{vpc}/?DestinationCidrBlock=10.8.0.0%2F24&Name=a%20b%2A%7E%2B%26%3D%C3%A4&Empty="),
        acs3(TIMES[1], f"{vpc}/?RegionId=eu-central-1", token=TOKEN),
        acs3(TIMES[1], "http://127.0.0.1:8000/path/of/it?x=1", method="GET"),
        acs3(TIMES[2], f"{vpc}/?RegionId=r", body="a=1&b=ä", content_type="application/x-www-form-urlencoded"),
        *(tc3(unix, {"AddressIds": ["eip-1"]}) for unix in TIMES),
        tc3(TIMES[0], {}),
        tc3(TIMES[0], {"AddressIds": ["eip-1"], "Name": 'ä"\\'}, token=TOKEN),
        tc3(TIMES[0], {"Limit": 1}, region=""),
        *(oci(unix, "GET", f"{iaas}/privateIps/ocid1.privateip.oc1..cccc") for unix in TIMES),
        oci(TIMES[0], "GET", f"{iaas}/privateIps?subnetId=ocid1.subnet&ipAddress=10.0.0.9"),
        oci(TIMES[1], "PUT", f"{iaas}/privateIps/ocid1.privateip.oc1..cccc", '{"vnicId":"ocid1.vnic.oc1..dddd"}'),
        oci(TIMES[1], "PUT", f"{iaas}/privateIps/ocid1.privateip.oc1..cccc", '{"vnicId":"ocid1.vnic.oc1..dddd"}', key="oci-pkcs1.pem"),
        oci(TIMES[2], "DELETE", f"{iaas}/privateIps/ocid1.privateip.oc1..cccc"),
    ]
    print(json.dumps(vectors, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
