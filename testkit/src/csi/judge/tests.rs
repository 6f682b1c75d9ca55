// SPDX-License-Identifier: Apache-2.0
//! Each rule has a call that keeps it and one that breaks it.

mod creation;
mod rules;
mod scene;
mod states;
mod table;
