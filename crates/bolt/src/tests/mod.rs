//! The engine against a dumb model, power cuts, failing operations, hostile files, real files, and Go.

mod basics;
mod bulk;
mod faults;
mod hostile;
mod model;
mod ping_pong;
mod power_loss;
pub(crate) mod support;
mod traced;
mod vectors;
