// SPDX-License-Identifier: Apache-2.0
//! Clients of our own API, and its messages read into the model.
