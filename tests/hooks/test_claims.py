"""Every case of cases.py for every hook, and what is peculiar to one of them."""

import cases
from fake.aws import AwsEip, AwsRoute, AwsSecondaryIp
from fake.azure import AzureRoute
from fake.digitalocean import DigitalOcean
from fake.gcp import GcpForwardingRule, GcpRoute
from fake.hetzner import Hetzner
from fake.openstack import OpenStack
from fake.ovh import Ovh
from fake.scaleway import Scaleway

CLOUDS = (AwsEip, AwsSecondaryIp, AwsRoute, GcpRoute, GcpForwardingRule, AzureRoute, Hetzner, DigitalOcean, OpenStack, Scaleway, Ovh)
# What differs from hook to hook, by group of cases.
PECULIAR = {
    AwsRoute: {"releases": False, "reads_of_a_look": 2},
    AzureRoute: {"releases": False, "reads_of_a_look": 2},
    GcpForwardingRule: {"releases": False},
    # It has none.
    Ovh: {"test_metadata_service_is_down": None, "test_metadata_service_says_nothing": None},
}


def classes():
    """A class for each group and each cloud, by name."""
    made = {}
    for cloud in CLOUDS:
        for group in cases.GROUPS:
            own = {"make_cloud": cloud, "__module__": __name__, **PECULIAR.get(cloud, {})}
            own["__qualname__"] = name = f"{cloud.__name__}{group.__name__}"
            if not cloud.asynchronous:
                own.update(dict.fromkeys(cases.OF_OPERATIONS))
            made[name] = type(name, (group,), own)
    return made


globals().update(classes())
