//! The engine from outside: against a dumb model, against power cuts, against hostile files, against Go.

mod basics;
mod model;
mod support;
