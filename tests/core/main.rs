//! The core under load and under fire: the queue, the log and the engine, without a filesystem.

mod against_model;
mod model;
