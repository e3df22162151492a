// SPDX-License-Identifier: Apache-2.0

// conntrack: the connections that the kernel tracks, listed and forgotten by ctnetlink.
// What conntrack(8) writes, this writes. Which connections matter is for `host` to say; no process is started.

export * from './flow.ts'
