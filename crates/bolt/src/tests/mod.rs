//! The engine against a dumb model, power cuts, failing operations, hostile files, real files, and Go.

mod basics;
mod faults;
mod hostile;
mod model;
mod power_loss;
mod support;
mod traced;
mod vectors;
