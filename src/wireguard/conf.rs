//! wg0.conf, in the format of wg-quick(8).

/// A whole, valid file.
#[derive(Clone, Debug)]
pub struct WgConf {}
