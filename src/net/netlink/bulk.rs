//! Many routes at once: a gateway has one for each prefix of its peers.

use futures_util::StreamExt as _;
use futures_util::stream::iter;

use super::super::types::Route;
use super::{NetError, Netlink};

/// Requests under way at once. Waiting for each answer alone costs two turns of the runtime a route.
const IN_FLIGHT: usize = 32;

impl Netlink {
    /// Adds routes in this order, and returns those in whose place there is one already (same
    /// destination, metric and table), which may go elsewhere.
    ///
    /// # Errors
    /// The first refusal ends it, as of [`Netlink::add_route`]; a few later ones may be added.
    pub async fn add_routes(&self, routes: Vec<Route>) -> Result<Vec<Route>, NetError> {
        let adding = routes.into_iter().map(async |route| (self.add_route(&route).await, route));
        let mut answers = iter(adding).buffered(IN_FLIGHT);
        let mut taken = Vec::new();
        while let Some((added, route)) = answers.next().await {
            if !added? {
                taken.push(route);
            }
        }
        Ok(taken)
    }

    /// Removes routes in this order; what is not there is gone.
    ///
    /// # Errors
    /// The first refusal ends it, as of [`Netlink::remove_route`]; a few later ones may be removed.
    pub async fn remove_routes(&self, routes: Vec<Route>) -> Result<(), NetError> {
        let removing = routes.into_iter().map(async |route| self.remove_route(&route).await);
        let mut answers = iter(removing).buffered(IN_FLIGHT);
        while let Some(removed) = answers.next().await {
            removed?;
        }
        Ok(())
    }
}
