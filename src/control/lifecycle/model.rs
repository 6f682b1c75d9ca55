// SPDX-License-Identifier: Apache-2.0
//! The checks of the state machine. A simulated driver and simulated nodes judge
//! what is done to them, and name the invariant that was broken.
//!
//! I4 and I7 to I10 do not apply here: they speak of directories, containers,
//! time and secrets, of which the state machine knows nothing.

mod bounds;
mod bugs;
mod code;
mod histories;
mod lives;
mod op;
mod records;
mod reduction;
mod search;
mod sim;
mod table;
mod world;
