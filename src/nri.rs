// SPDX-License-Identifier: Apache-2.0
//! The Node Resource Interface: multiplexer, ttrpc, session. Imports proto and error alone.
