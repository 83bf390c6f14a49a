//! nf_tables over netlink, as little as the [`gate`](super::gate) and the [`barrier`](super::barrier) need.
//!
//! `encode` is messages as bytes, `batch` what the tables are made of, `expression` what a rule compares and
//! does, `socket` how it is said to the kernel, and what it answers.

mod batch;
mod encode;
mod expression;
mod socket;

pub(super) use batch::{Batch, GENERATION_AT};
pub(super) use encode::{Attributes, Family, Kind};
pub(super) use expression::{Expressions, ICMPV6, Place, Side, UDP};
pub(super) use socket::{Connection, Subscription, attribute, changes_rules, is_unsupported};
