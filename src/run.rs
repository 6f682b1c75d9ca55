// SPDX-License-Identifier: Apache-2.0
//! The composition root: the only place that knows all rooms.
