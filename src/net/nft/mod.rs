//! nf_tables over netlink, as little as the [`gate`](super::gate) and the [`barrier`](super::barrier) need.
//!
//! `encode` is messages as bytes, `batch` what the tables are made of, `expression` what a rule compares and
//! does, `socket` how it is said to the kernel, `answer` what that says, `subscription` how changes of others are heard of.

mod answer;
mod batch;
mod encode;
mod expression;
mod socket;
mod subscription;

pub(super) use answer::{attribute, changes_rules};
pub(super) use batch::{Batch, GENERATION_AT};
pub(super) use encode::{Attributes, Family, Kind};
pub(super) use expression::{Expressions, ICMPV6, Place, Side, UDP};
pub(super) use socket::{Connection, is_unsupported};
pub(super) use subscription::Subscription;
